"""The metrics of the data set's task."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Unpack

import torch
from torch import nn

from kdx.core.task import PairMetric
from kdx.evals.base import OfSplit, SplitEvaluator, computed, network


class OfNetwork(OfSplit):
    """The arguments of `TaskMetrics`, which its subclasses accept beside their own."""

    model: str


class TaskMetrics(SplitEvaluator):
    """Measures `{split}/{metric}` for each metric of the task, such as `test/top1` or `test/rmse`.

    Args:
        model: Role of the network to measure. For roles other than the student, the role is a prefix of the metric:
            `teacher/test/top1`.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.
    """

    tasks = None

    def __init__(self, model: str, **own: Unpack[OfSplit]):
        super().__init__(**own)
        self.model = model

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        net = network(models, self.model)
        prefix = f"{self.split}/" if self.model == "student" else f"{self.model}/{self.split}/"
        return {prefix + name: value for name, value in self.measure(net).items()}

    def metrics(self) -> Mapping[str, PairMetric]:
        """New metrics, by name."""
        return self.task.metrics()

    @torch.no_grad()
    def measure(self, net: nn.Module) -> dict[str, float]:
        """Metrics of a network in evaluation mode, by short name; several processes divide the batches."""
        metrics, seen = self.metrics(), False
        for batch in self.share(net):
            seen = True
            pair = self.task.pair(net(batch.inputs), batch)
            for metric in metrics.values():
                metric.update(*pair)
        return computed(
            metrics if seen else {}, lambda: {k: v for m in metrics.values() for k, v in m.compute().items()}, net
        )


class ExtraMetrics(TaskMetrics):
    """Measures `{split}/{metric}` for additional metrics, on the predictions and targets of the task.

    Args:
        metrics: New metrics, such as subclasses of `kdx.metrics.base.StreamingMetric`; each evaluation uses copies.
        own: loaders, device, task, split, model and every, as in `TaskMetrics`.
    """

    def __init__(self, metrics: Sequence[PairMetric], **own: Unpack[OfNetwork]):
        super().__init__(**own)
        self._own = tuple(metrics)
        self.described = tuple(one for metric in metrics for one in metric.described)

    def metrics(self) -> Mapping[str, PairMetric]:
        return {f"{i} {type(metric).__name__}": deepcopy(metric) for i, metric in enumerate(self._own)}
