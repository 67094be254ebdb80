"""The contract of a task: its targets, metrics and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kdx.core.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from kdx.core.batch import Batch
    from kdx.core.outputs import Outputs

CLASSES, VALUES, LABELS, TOKENS = "classes", "values", "labels", "tokens"
BOXES, PIXELS = "boxes", "pixels"
Kinds = frozenset[str]
ONLY_CLASSES: Kinds = frozenset({CLASSES})


class PairMetric(Protocol):
    """A streaming metric of two tensors; see `kdx.metrics.base.StreamingMetric`."""

    sums: dict[str, Tensor]

    @property
    def described(self) -> Sequence[Metric]: ...

    def merge(self, sums: Mapping[str, Tensor]) -> None: ...

    def update(self, predicted: Tensor, target: Tensor, /) -> None: ...

    def compute(self) -> dict[str, float]: ...


class Part(Protocol):
    """A method, term or evaluator, which may be restricted to some tasks.

    Attributes:
        tasks: Kinds of tasks that it fits; None for all.
    """

    tasks: Kinds | None


class Task(Protocol):
    """The task of a data set.

    Attributes:
        kind: "classes", "values", "labels", "tokens", "boxes", "pixels" or a new kind; terms and methods name those
            that they fit.
        num_outputs: Number of outputs of a network for each example, or for each of its rows.
    """

    @property
    def kind(self) -> str: ...

    @property
    def num_outputs(self) -> int: ...

    @property
    def each_row(self) -> Task | None:
        """The task of a row, where logits are rows of each example, as [B, L, V] of tokens; else None."""
        ...

    @property
    def described(self) -> Sequence[Metric]:
        """The metrics that `metrics` compute, with short names, in display order."""
        ...

    @property
    def primary(self) -> Metric:
        """The metric, with its short name, that selects epochs, ranks trials of a search and gates teachers."""
        ...

    def training_metric(self, outputs: Outputs, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Metrics of a training batch by name: numerator and denominator, each a sum over examples."""
        ...

    def metrics(self) -> Mapping[str, PairMetric]:
        """New streaming metrics by name; they are updated with the two tensors of `pair`."""
        ...

    def pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predictions and targets for the metrics. Raises UserError if targets are missing."""
        ...

    def answer(self, outputs: Outputs) -> Tensor:
        """The answer of a network for each example, [B, ...]: its logits, or its detections."""
        ...

    def fidelity(self) -> PairMetric:
        """A new metric of how closely one network follows another, updated with `counted` answers of the two."""
        ...

    def counted(self, answer: Tensor, batch: Batch) -> Tensor:
        """The rows of a network's answers that metrics count, [N, K]."""
        ...

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Logits of the joint prediction of several networks, [B, K] as each of theirs."""
        ...

    def predictions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """Per-example outputs to keep, from outputs whose logits are the answer."""
        ...

    def kept_targets(self, batch: Batch) -> Mapping[str, Tensor]:
        """Per-example targets to keep, beside the predictions."""
        ...

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        """Targets of a batch for a trial step."""
        ...

    def fits(self, part: type[Part] | Part) -> str | None:
        """The reason why a part does not fit this task, in a sentence; None if it fits."""
        ...
