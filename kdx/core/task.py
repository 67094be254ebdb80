"""The contract of a task: what a network's outputs are compared with, and how it is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kdx.core.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from kdx.core.batch import Batch
    from kdx.core.outputs import Outputs

CLASSES, VALUES, LABELS = "classes", "values", "labels"
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
    """Something of a run that may fit some tasks alone.

    Attributes:
        tasks: Kinds of tasks that it fits; None for all.
    """

    tasks: Kinds | None


class Task(Protocol):
    """What a data set asks of a network.

    Attributes:
        kind: "classes", "values", "labels" or a kind of one's own; terms and methods name the kinds that they fit.
        num_outputs: Numbers that a network gives for each example.
    """

    @property
    def kind(self) -> str: ...

    @property
    def num_outputs(self) -> int: ...

    @property
    def described(self) -> Sequence[Metric]:
        """The metrics that `metrics` give, by their short names, in the order in which people see them."""
        ...

    @property
    def primary(self) -> Metric:
        """The metric, by its short name, that epochs, trials of a search and teachers are judged by."""
        ...

    def training_metric(self, outputs: Outputs, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Measurements of a training batch by name: numerator and denominator, each a sum over examples."""
        ...

    def metrics(self) -> Mapping[str, PairMetric]:
        """New metrics of a network; each is given the two tensors of `pair`."""
        ...

    def pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """What metrics compare: predictions and targets. Raises UserError where targets are missing."""
        ...

    def fidelity(self) -> PairMetric:
        """A new metric of how closely a network follows another; it is given the logits of the two."""
        ...

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Logits of several networks' joint prediction, each [B, K]."""
        ...

    def predictions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """What is kept of a network's outputs for each example."""
        ...

    def kept_targets(self, batch: Batch) -> Mapping[str, Tensor]:
        """What is kept of the targets, beside the predictions."""
        ...

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        """Targets of a batch for a trial step."""
        ...

    def fits(self, part: type[Part] | Part) -> str | None:
        """Why a part of a run cannot be used with this task, in a sentence; None where it can."""
        ...
