"""F1 of several labels at thresholds that are chosen on validation."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.ranges import Positive
from kdx.core.task import LABELS, PairMetric, Task
from kdx.data.on_device import on_device
from kdx.evals.base import SplitEvaluator, computed, dealt, network
from kdx.metrics.multilabel import LabelDecisions, LabelRanking


class LabelThresholds(SplitEvaluator):
    """Measures `thresholds/{split}/micro_f1`, `macro_f1` and `hamming`, at thresholds chosen by F1 on another split.

    Args:
        choose_on: Split that thresholds are chosen on, such as "val" (dataset.val_fraction cuts one), never the one
            that is measured.
        per_label: Whether each label has a threshold of its own, chosen by its F1; otherwise one threshold, chosen by
            micro F1, serves all.
        model: Role of the network to measure.
        loaders, device, task, split, every: As in `SplitEvaluator`.

    Raises:
        UserError: There is no such split, or both are the same.
    """

    tasks = frozenset({LABELS})
    described = tuple(
        replace(metric, name=f"thresholds/*/{metric.name}", label=f"{metric.label} at chosen thresholds")
        for metric in LabelDecisions.described
    )

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Batch]],
        device: torch.device,
        task: Task,
        split: str,
        choose_on: str,
        per_label: bool,
        model: str,
        every: Positive | None,
    ):
        super().__init__(loaders, device, task, split, every)
        if choose_on == split:
            raise UserError(f"thresholds are chosen on another split than they are measured on, and both are '{split}'")
        if choose_on not in loaders:
            raise UserError(
                f"there is no split '{choose_on}' to choose thresholds on; this data set has: {', '.join(loaders)} "
                "(dataset.val_fraction cuts a split val)"
            )
        self._choose_on, self._per_label, self.model = loaders[choose_on], per_label, model

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        net = network(models, self.model)
        ranking = LabelRanking()
        self._measure(net, self._choose_on, ranking)
        # a mapping of numbers, since this is how one process tells the others
        chosen = computed({"ranking": ranking}, lambda: _numbers(ranking.thresholds(self._per_label)), net)
        decisions = LabelDecisions(torch.tensor(list(chosen.values()), dtype=torch.float64))
        self._measure(net, self.loader, decisions)
        found = computed({"decisions": decisions}, decisions.compute, net)
        return {f"thresholds/{self.split}/{name}": value for name, value in found.items()}

    def _measure(self, net: nn.Module, loader: Iterable[Batch], metric: PairMetric) -> None:
        for batch in on_device(dealt(loader, net), self._device):
            metric.update(*self.task.pair(net(batch.inputs), batch))


def _numbers(thresholds: Tensor) -> dict[str, float]:
    return {str(label): float(threshold) for label, threshold in enumerate(thresholds)}
