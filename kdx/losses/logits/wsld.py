"""WSLD: soft labels count less where the student has a lower loss than the teacher."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_same_logits
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term
from kdx.losses.logits.kd import soft_cross_entropy

LEAST_LOSS = 1e-7
"""Added to the teacher's loss, which a sure teacher rounds to 0."""


@full_precision
def soft_label_weights(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """`1 - exp(-CE_s / CE_t)` of the cross-entropies with the label at temperature 1; no gradient.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        labels: Class indices [B].

    Returns:
        [B], between 0 and 1.

    References:
        Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang, "Rethinking Soft Labels for Knowledge Distillation: A
        Bias-Variance Tradeoff Perspective", 2021. https://arxiv.org/abs/2102.00650

    Example:
        A student with the teacher's loss has the weight 1 - 1 / e.

        >>> z = torch.randn(1, 5)
        >>> weight = soft_label_weights(z, z, torch.tensor([2]))
        >>> torch.allclose(weight, 1 - torch.ones(1).neg().exp(), atol=1e-5)
        True
    """
    with torch.no_grad():
        mine, theirs = (F.cross_entropy(z, labels, reduction="none") for z in (student_logits, teacher_logits))
        return -torch.expm1(-mine / (theirs + LEAST_LOSS))


@full_precision
def weighted_soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """`T^2 w H(p, q)`, with the weight of `soft_label_weights`, which gets no gradient.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        labels: Class indices [B].
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        As in `soft_label_weights`.

    Example:
        >>> z, v, labels = torch.randn(2, 5), torch.randn(2, 5), torch.tensor([0, 3])
        >>> plain = soft_cross_entropy(z, v, 4.0, "batchmean")
        >>> bool((weighted_soft_cross_entropy(z, v, labels, 4.0) < plain).all())
        True
    """
    weights = soft_label_weights(student_logits, teacher_logits, labels)
    return weights * soft_cross_entropy(student_logits, teacher_logits, temperature, "batchmean")


class WSLD(Term):
    """Weighted soft cross-entropy, times T^2. Where samples are mixed, the label is the dominant class.

    Args:
        temperature: T, a number or a schedule; the weights are at 1.
    """

    def __init__(self, temperature: Positive | Schedule):
        super().__init__()
        self.temperature = temperature

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "WSLD")
        require_labels(spec, "WSLD")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        temperature = at(self.temperature, progress)
        return weighted_soft_cross_entropy(student.logits, teacher.logits, batch.labels, temperature)
