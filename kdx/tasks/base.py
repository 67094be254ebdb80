"""Base class of tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.metric import Metric
from kdx.core.outputs import Outputs
from kdx.core.task import Part, Task


@dataclass(frozen=True)
class BaseTask:
    """A task with a kind; subclasses implement the other methods of `kdx.core.task.Task`."""

    @property
    def kind(self) -> str:
        raise NotImplementedError

    @property
    def each_row(self) -> Task | None:
        """The task of a row; None where logits are one vector per example."""
        return None

    def answer(self, outputs: Outputs) -> Tensor:
        """The answer of a network for each example: its logits."""
        return outputs.logits

    def counted(self, answer: Tensor, batch: Batch) -> Tensor:
        """The rows of a network's answers that metrics count: all of them."""
        return answer

    def fits(self, part: type[Part] | Part) -> str | None:
        """The reason why a part does not fit this task, in a sentence; None if it fits."""
        if part.tasks is None or self.kind in part.tasks:
            return None
        name = (part if isinstance(part, type) else type(part)).__name__
        return f"{name} needs a task with {' or '.join(sorted(part.tasks))}, and this task has {self.kind}"


def metric_of(described: Iterable[Metric], name: str) -> Metric:
    """The metric of a short name."""
    return next(metric for metric in described if metric.name == name)


def describe(*groups: Sequence[Metric]) -> tuple[Metric, ...]:
    """The metrics of several groups, in order."""
    return tuple(metric for group in groups for metric in group)
