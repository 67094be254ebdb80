"""F1 of multi-label predictions at thresholds chosen on validation."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.task import LABELS, PairMetric
from kdx.data.on_device import on_device
from kdx.evals.base import OfSplit, SplitEvaluator, computed, dealt, network
from kdx.metrics.multilabel import LabelDecisions, LabelRanking


class LabelThresholds(SplitEvaluator):
    """Measures `thresholds/{split}/micro_f1`, `macro_f1`, `hamming` and `jaccard`, at thresholds chosen by F1 on
    another split; with one threshold for all labels, the names begin with `one_threshold/`.

    Args:
        choose_on: Split on which thresholds are chosen, such as "val" (dataset.val_fraction cuts one), other than
            `split`.
        per_label: Whether each label has its own threshold, chosen by its F1; otherwise all labels share one threshold,
            chosen by micro F1.
        model: Role of the network to measure.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.

    Raises:
        UserError: A split does not exist, or both are the same.
    """

    tasks = frozenset({LABELS})
    described = tuple(
        replace(metric, name=f"{prefix}/*/{metric.name}", label=f"{metric.label} at {what}")
        for prefix, what in (("thresholds", "chosen thresholds"), ("one_threshold", "one chosen threshold"))
        for metric in LabelDecisions.described
    )

    def __init__(self, choose_on: str, per_label: bool, model: str, **own: Unpack[OfSplit]):
        super().__init__(**own)
        loaders = own["loaders"]
        if choose_on == self.split:
            raise UserError(
                f"thresholds must be chosen on another split than they are measured on; both are '{choose_on}'"
            )
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
        # a mapping of numbers, as `computed` sends it to the other processes
        chosen = computed({"ranking": ranking}, lambda: _numbers(ranking.thresholds(self._per_label)), net)
        decisions = LabelDecisions(torch.tensor(list(chosen.values()), dtype=torch.float64))
        self._measure(net, self.loader, decisions)
        found = computed({"decisions": decisions}, decisions.compute, net)
        prefix = "thresholds" if self._per_label else "one_threshold"
        return {f"{prefix}/{self.split}/{name}": value for name, value in found.items()}

    def _measure(self, net: nn.Module, loader: Iterable[Batch], metric: PairMetric) -> None:
        for batch in on_device(dealt(loader, net), self._device):
            metric.update(*self.task.pair(net(batch.inputs), batch))


def _numbers(thresholds: Tensor) -> dict[str, float]:
    return {str(label): float(threshold) for label, threshold in enumerate(thresholds)}
