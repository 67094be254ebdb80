"""Divergences other than the forward KL of plain distillation."""

import math

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


def _log_probs(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log p of the teacher, without a gradient, and log q of the student."""
    return soft_log_probs(teacher_logits.detach(), temperature), soft_log_probs(student_logits, temperature)


@full_precision
def reverse_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(q || p)`, mode-seeking: the student pays for probability where the teacher has little.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        Gu, Dong, Wei, Huang, "MiniLLM: Knowledge Distillation of Large Language Models", 2023.
        https://arxiv.org/abs/2306.08543

    Example:
        >>> z, v = torch.randn(3, 5), torch.randn(3, 5)
        >>> expected = divergence(z.log_softmax(1), v.log_softmax(1))
        >>> torch.allclose(reverse_divergence(z, v, 1.0), expected)
        True
    """
    log_p, log_q = _log_probs(student_logits, teacher_logits, temperature)
    return divergence(log_q, log_p) * temperature**2


@full_precision
def symmetric_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 (KL(p || q) + KL(q || p)) / 2`: half of Jeffreys' divergence.

    The factor 1/2 keeps the gradient near the teacher as large as that of either direction.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        Kullback, Leibler, "On Information and Sufficiency", 1951. https://doi.org/10.1214/aoms/1177729694

    Example:
        >>> z, v = torch.randn(3, 5), torch.randn(3, 5)
        >>> torch.allclose(symmetric_divergence(z, v, 4.0), symmetric_divergence(v, z, 4.0))
        True
    """
    log_p, log_q = _log_probs(student_logits, teacher_logits, temperature)
    return (divergence(log_p, log_q) + divergence(log_q, log_p)) * (0.5 * temperature**2)


@full_precision
def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 (KL(p || m) + KL(q || m)) / 2` with m the mean of p and q; at most `T^2 log 2`.

    Near the teacher it is a quarter of the forward divergence.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        Lin, "Divergence Measures Based on the Shannon Entropy", 1991. https://doi.org/10.1109/18.61115
        Wen, Li, Du, Mou, "f-Divergence Minimization for Sequence-Level Knowledge Distillation", 2023.
        https://arxiv.org/abs/2307.15190

    Example:
        The divergence of two distributions without a common class is log 2.

        >>> certain = torch.tensor([[100.0, 0.0]])
        >>> torch.allclose(jensen_shannon(certain, certain.flip(1), 1.0), torch.tensor([2.0]).log())
        True
    """
    log_p, log_q = _log_probs(student_logits, teacher_logits, temperature)
    log_m = log_p.logaddexp(log_q) - math.log(2)
    return (divergence(log_p, log_m) + divergence(log_q, log_m)) * (0.5 * temperature**2)


@full_precision
def total_variation(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`T sum |p - q| / 2`: T times the largest difference of the probabilities of any set of classes.

    It is of first order in the difference of the logits, so a factor of T, not T^2, keeps its size when T changes.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.

    Returns:
        [B], at most T.

    References:
        Wen, Li, Du, Mou, "f-Divergence Minimization for Sequence-Level Knowledge Distillation", 2023.
        https://arxiv.org/abs/2307.15190

    Example:
        >>> certain = torch.tensor([[100.0, 0.0]])
        >>> total_variation(certain, certain.flip(1), 1.0)
        tensor([1.])
    """
    log_p, log_q = _log_probs(student_logits, teacher_logits, temperature)
    return (log_p.exp() - log_q.exp()).abs().sum(1) * (0.5 * temperature)


class ReverseKL(Term):
    """Divergence of the softened teacher from the softened student, times T^2.

    Args:
        temperature: T, a number or a schedule.
    """

    measure = staticmethod(reverse_divergence)

    def __init__(self, temperature: Positive | Schedule):
        super().__init__()
        self.temperature = temperature

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, type(self).__name__)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return self.measure(student.logits, teacher.logits, at(self.temperature, progress))


class SymmetricKL(ReverseKL):
    """Mean of the two divergences between softened student and teacher, times T^2. Arguments as in `ReverseKL`."""

    measure = staticmethod(symmetric_divergence)


class JensenShannon(ReverseKL):
    """Jensen-Shannon divergence of softened student and teacher, times T^2. Arguments as in `ReverseKL`."""

    measure = staticmethod(jensen_shannon)


class TotalVariation(ReverseKL):
    """Total variation between softened student and teacher, times T. Arguments as in `ReverseKL`."""

    measure = staticmethod(total_variation)
