"""Knowledge distillation (Hinton et al.): match softened distributions."""

from typing import Literal

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import divergence
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_same_logits
from kdx.losses.base.numerics import full_precision, soft_log_probs
from kdx.losses.base.term import Term

Reduction = Literal["batchmean", "mean"]


def over_classes(rows: Tensor, num_classes: int, reduction: Reduction) -> Tensor:
    """Reduce sums over classes: unchanged ('batchmean') or divided by the number of classes ('mean').

    Args:
        rows: Sums over classes, [B].
        num_classes: C.
        reduction: 'batchmean' or 'mean', as in `torch.nn.KLDivLoss`.

    Returns:
        [B].

    Raises:
        ValueError: An unknown reduction.

    Example:
        >>> over_classes(torch.tensor([10.0]), 5, "batchmean"), over_classes(torch.tensor([10.0]), 5, "mean")
        (tensor([10.]), tensor([2.]))
    """
    if reduction not in ("batchmean", "mean"):
        raise ValueError(f"reduction must be 'batchmean' or 'mean', got {reduction!r}")
    return rows if reduction == "batchmean" else rows / num_classes


@full_precision
def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float, reduction: Reduction) -> Tensor:
    """`T^2 KL(p || q)` between teacher p and student q, both at temperature T.

    T^2 keeps the size of the gradient when T changes, so that a sweep over T compares targets and not learning rates.
    As T grows, the gradient approaches that of half the squared difference of the (per-sample centred) logits divided
    by the number of classes.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.
        reduction: 'batchmean' sums over classes, as in the equation. 'mean' also divides by C, as
            `KLDivLoss(reduction="mean")` does; TAKD, DGKD, Tf-KD and PKD were trained with it.

    Returns:
        [B], in nats.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
        https://arxiv.org/abs/1503.02531

    Example:
        For large T, the value approaches half the mean squared difference of centred logits.

        >>> z, v = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
        >>> gap = (z - v) - (z - v).mean(1, keepdim=True)
        >>> torch.allclose(kl_divergence(z, v, 1e4, "batchmean"), gap.square().mean(1) / 2, rtol=1e-3)
        True
    """
    log_p = soft_log_probs(teacher_logits.detach(), temperature)
    log_q = soft_log_probs(student_logits, temperature)
    return over_classes(divergence(log_p, log_q) * temperature**2, student_logits.shape[1], reduction)


@full_precision
def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, reduction: Reduction
) -> Tensor:
    """`T^2 H(p, q)` between teacher p and student q, both at temperature T.

    It differs from `kl_divergence` by the teacher's entropy, a constant, so the gradients are equal.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.
        reduction: As in `kl_divergence`.

    Returns:
        [B], in nats.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
        https://arxiv.org/abs/1503.02531

    Example:
        >>> z, v = torch.randn(2, 5), torch.randn(2, 5)
        >>> entropy = soft_cross_entropy(v, v, 1.0, "batchmean")
        >>> gap = soft_cross_entropy(z, v, 1.0, "batchmean") - kl_divergence(z, v, 1.0, "batchmean")
        >>> torch.allclose(gap, entropy, atol=1e-6)
        True
    """
    p = soft_log_probs(teacher_logits.detach(), temperature).exp()
    log_q = soft_log_probs(student_logits, temperature)
    return over_classes(-(p * log_q).sum(1) * temperature**2, student_logits.shape[1], reduction)


class KD(Term):
    """Kullback-Leibler divergence of the softened student from the softened teacher, times T^2.

    Args:
        temperature: T, a number or a schedule.
        reduction: 'batchmean' (sum over classes) or 'mean' (divided by the number of classes as well).
    """

    def __init__(self, temperature: Positive | Schedule, reduction: Reduction):
        super().__init__()
        self.temperature = temperature
        self.reduction: Reduction = reduction

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "KD")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return kl_divergence(student.logits, teacher.logits, at(self.temperature, progress), self.reduction)


class SoftCrossEntropy(KD):
    """Cross-entropy of the softened student with the softened teacher, times T^2. Arguments as in `KD`."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return soft_cross_entropy(student.logits, teacher.logits, at(self.temperature, progress), self.reduction)
