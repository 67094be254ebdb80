"""Semantic segmentation: one class of C for each pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import mean_log_probs
from kdx.core.metric import Metric
from kdx.core.outputs import Outputs
from kdx.core.task import PIXELS, PairMetric, Task
from kdx.metrics.segmentation import PixelClasses, PixelFidelity, pixel_classes
from kdx.tasks.base import BaseTask, describe, metric_of
from kdx.tasks.classes import Classes


@dataclass(frozen=True)
class Pixels(BaseTask):
    """Logits [B, C, H, W] against the class of each pixel [B, H, W], -1 for none; measured by mean IoU.

    Attributes:
        num_classes: C, with the background.
        size: (H, W).

    Example:
        >>> Pixels(6, (48, 48)).primary.heading
        'mIoU %'
    """

    num_classes: int
    size: tuple[int, int]

    @property
    def kind(self) -> str:
        return PIXELS

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    @property
    def each_row(self) -> Task:
        """The task of a pixel."""
        return Classes(self.num_classes)

    @property
    def described(self) -> Sequence[Metric]:
        return describe(PixelClasses.described)

    @property
    def primary(self) -> Metric:
        return metric_of(PixelClasses.described, "miou")

    def training_metric(self, outputs: Outputs, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Share of the labelled pixels that are right."""
        labels = batch.labels
        return {"pixel_accuracy": ((pixel_classes(outputs.logits) == labels).sum(), (labels >= 0).sum())}

    def metrics(self) -> Mapping[str, PairMetric]:
        return {"pixels": PixelClasses()}

    def pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        return outputs.logits.float(), batch.labels

    def fidelity(self) -> PairMetric:
        return PixelFidelity()

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Logarithm of the mean of the networks' probabilities, [B, C, H, W]."""
        return mean_log_probs([own.movedim(1, -1).log_softmax(-1) for own in logits]).movedim(-1, 1)

    def predictions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """ "prediction" int16 [B, H, W]; C where a logit is NaN."""
        return {"prediction": pixel_classes(outputs.logits).short()}

    def kept_targets(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"label": batch.labels.short()}

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        """Classes in turn, from pixel to pixel."""
        h, w = self.size
        return {"labels": (torch.arange(size * h * w) % self.num_classes).view(size, h, w)}
