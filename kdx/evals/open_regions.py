"""Accuracy of an open-vocabulary detector on true boxes."""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.task import BOXES
from kdx.evals.base import OfSplit, SplitEvaluator, computed, network
from kdx.metrics.base import StreamingMetric
from kdx.metrics.open_detection import KINDS, nearest_class
from kdx.tasks.open_boxes import OpenBoxes


class RegionAccuracy(SplitEvaluator):
    """Measures `{split}/region_accuracy_base` and `_novel`: true boxes that are closest to the name of their class.

    It is independent of localisation and of the ranking of detections, which AP measures. Guessing among N novel
    classes scores 1 / N.

    Args:
        own: loaders, device, task, split and every, as in `SplitEvaluator`.
    """

    tasks = frozenset({BOXES})
    described = tuple(
        Metric(
            name=f"*/region_accuracy_{kind}",
            label=f"true {kind} boxes",
            unit="%",
            digits=2,
            better="higher",
            shown=True,
        )
        for kind in KINDS
    )

    def __init__(self, **own: Unpack[OfSplit]):
        super().__init__(**own)
        if not isinstance(self.task, OpenBoxes):
            raise UserError("RegionAccuracy needs a data set with novel classes, such as dataset=open_scenes")
        self.novel = list(self.task.novel)

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        net, counts = network(models, "student"), Counts()
        novel = torch.zeros(self.task.num_outputs, dtype=torch.bool, device=self._device)
        novel[self.novel] = True
        seen = False
        for batch in self.share(net):
            seen = True
            logits, labels = true_regions(net, batch)
            for kind, mine in zip(KINDS, (~novel, novel), strict=True):
                right, number = nearest_class(logits, torch.where(mine[labels.clamp(min=0)], labels, -1))
                counts.add(f"right {kind}", right)
                counts.add(f"number {kind}", number)
        found = computed({"regions": counts} if seen else {}, counts.compute, net)
        return {f"{self.split}/region_accuracy_{kind}": value for kind, value in found.items()}


class Counts(StreamingMetric):
    """Right and all boxes of either kind."""

    def compute(self) -> dict[str, float]:
        numbers = {kind: float(self.total(f"number {kind}")) for kind in KINDS}
        return {kind: float(self.total(f"right {kind}")) / n for kind, n in numbers.items() if n}


def true_regions(net: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, C] of the true boxes of a batch, and their classes [N]."""
    boxes, labels = batch.target("boxes"), batch.target("box_labels")
    real = (labels >= 0) & ~batch.target("crowd")
    owner, _ = real.nonzero(as_tuple=True)
    assert isinstance(batch.inputs, Mapping)
    outputs = net({**batch.inputs, "regions": boxes[real], "owner": owner})
    return outputs.logits[:, :-1], labels[real]
