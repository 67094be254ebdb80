"""The losses of a one-stage detector: focal loss of the anchors' classes, and L1 of their boxes.

References:
    Lin et al., "Focal Loss for Dense Object Detection", 2017. https://arxiv.org/abs/1708.02002
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.ranges import NonNegative, OpenFraction
from kdx.core.schedule import Progress
from kdx.losses.base.numerics import full_precision
from kdx.losses.detection.own import DetectorTerm, target


@full_precision
def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of all anchors that are not ignored, divided by the number of those of objects, [B].

    Args:
        logits: [B, A, C].
        labels: Class of each anchor, C for background, -1 to ignore, [B, A].
        alpha: Weight of the positive class; the others have 1 - alpha.
        gamma: Exponent of the error.

    Example:
        >>> focal_loss(torch.zeros(1, 2, 1), torch.tensor([[0, 1]]), 0.25, 2.0)
        tensor([0.1733])
    """
    classes = logits.shape[2]
    wanted = (labels[..., None] == torch.arange(classes, device=labels.device)).to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    p = logits.sigmoid()
    error = torch.where(wanted > 0, 1 - p, p)
    weight = torch.where(wanted > 0, alpha, 1 - alpha)
    rows = (weight * error**gamma * loss).sum(2) * (labels >= 0)
    return rows.sum(1) / _objects(labels, classes).sum(1).clamp(min=1)


@full_precision
def anchor_l1(deltas: Tensor, wanted: Tensor, labels: Tensor, background: int) -> Tensor:
    """L1 over the anchors of objects, divided by their number, [B].

    Args:
        deltas, wanted: Box regression, and the one wanted, [B, A, 4].
        labels: As in `focal_loss`.
        background: Number of the background class, C.

    Example:
        >>> anchor_l1(torch.ones(1, 2, 4), torch.zeros(1, 2, 4), torch.tensor([[0, 1]]), 1)
        tensor([4.])
    """
    real = _objects(labels, background)
    return ((deltas - wanted).abs().sum(2) * real).sum(1) / real.sum(1).clamp(min=1)


def _objects(labels: Tensor, background: int) -> Tensor:
    return (labels >= 0) & (labels < background)


class AnchorClasses(DetectorTerm):
    """Focal loss of the classes of all anchors.

    Args:
        alpha, gamma: See `focal_loss`.
    """

    reads = ("anchors.deltas",)

    def __init__(self, alpha: OpenFraction, gamma: NonNegative):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return focal_loss(student.logits, target(student, "anchors.labels"), self.alpha, self.gamma)


class AnchorBoxes(DetectorTerm):
    """Loss of the boxes of anchors that are objects."""

    reads = ("anchors.deltas",)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        labels, wanted = target(student, "anchors.labels"), target(student, "anchors.targets")
        return anchor_l1(student.feature("anchors.deltas"), wanted, labels, student.logits.shape[2])
