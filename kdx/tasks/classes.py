"""Classification: one class of C for each example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.functional import mean_log_probs
from kdx.core.metric import Metric
from kdx.core.outputs import Outputs
from kdx.core.spec import DataSpec, Images
from kdx.core.task import CLASSES, PairMetric
from kdx.metrics.accuracy import TopK, correct
from kdx.metrics.calibration import Calibration
from kdx.metrics.fidelity import ClassFidelity
from kdx.tasks.base import BaseTask, describe, metric_of

BINS = 15
"""Confidence bins of the calibration error, as in calibration papers."""


@dataclass(frozen=True)
class Classes(BaseTask):
    """Logits [B, C] against a class index [B]; measured by accuracy and calibration.

    Attributes:
        num_classes: C.

    Example:
        >>> Classes(10).primary.heading
        'top-1 %'
    """

    num_classes: int

    @property
    def kind(self) -> str:
        return CLASSES

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    @property
    def described(self) -> Sequence[Metric]:
        return describe(TopK.described, Calibration.described)

    @property
    def primary(self) -> Metric:
        return metric_of(TopK.described, "top1")

    def training_metric(self, outputs: Outputs, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        labels = batch.labels
        return {"top1": (correct(outputs.logits, labels).sum(), (labels >= 0).sum())}

    def metrics(self) -> Mapping[str, PairMetric]:
        return {"accuracy": TopK(ks=(1, 5) if self.num_classes >= 5 else (1,)), "calibration": Calibration(bins=BINS)}

    def pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        if bool((batch.labels < 0).any()):
            raise UserError("accuracy needs the label of every example, and this transfer set has unlabelled examples")
        return outputs.logits.float(), batch.labels

    def fidelity(self) -> PairMetric:
        return ClassFidelity()

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Logarithm of the mean of the networks' probabilities, [B, C]."""
        return mean_log_probs([own.log_softmax(1) for own in logits])

    def predictions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """ "prediction" int32 [B], -1 if a logit is NaN, and "confidence" float32 [B], the largest probability."""
        logits = outputs.logits
        broken = logits.isnan().any(1)
        return {
            "prediction": logits.argmax(1).masked_fill(broken, -1).int(),
            "confidence": logits.double().softmax(1).amax(1).float(),
        }

    def kept_targets(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"label": batch.labels.int()}

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        return {"labels": torch.arange(size) % self.num_classes}


def image_classes(
    num_classes: int,
    shape: tuple[int, ...],
    num_examples: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    labels: Tensor | None = None,
) -> DataSpec:
    """Facts of a data set of images with classes; see `Images` and `DataSpec` for the arguments."""
    return DataSpec(Classes(num_classes), Images(shape, mean, std), num_examples, labels)
