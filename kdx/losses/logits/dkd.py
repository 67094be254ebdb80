"""Decoupled knowledge distillation: separate weights for the label's probability and for the other classes."""

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import divergence
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative, Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_same_logits
from kdx.losses.base.numerics import full_precision, soft_log_probs, tempered
from kdx.losses.base.term import Term


def is_target(logits: Tensor, labels: Tensor) -> Tensor:
    """Mask of the label, bool [B, C], for logits [B, C] and labels [B].

    Example:
        >>> is_target(torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor([[ True, False, False],
                [False, False,  True]])
    """
    return torch.arange(logits.shape[1], device=logits.device) == labels[:, None]


def nontarget_log_probs(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Log-probabilities at a temperature among the classes other than the label; -inf at the label.

    Args:
        logits: [B, C].
        labels: Class indices [B].
        temperature: Above 0.

    Returns:
        [B, C].

    Example:
        >>> nontarget_log_probs(torch.zeros(1, 3), torch.tensor([0]), 1.0).exp()
        tensor([[0.0000, 0.5000, 0.5000]])
    """
    # masked after the division: -inf under a learned temperature would have a NaN gradient
    return tempered(logits, temperature).masked_fill(is_target(logits, labels), -torch.inf).log_softmax(1)


def _target_log_probs(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """log [p_t, 1 - p_t], [B, 2]. The second by logsumexp: the difference 1 - p_t would round to 0."""
    log_probs = soft_log_probs(logits, temperature)
    target = log_probs.gather(1, labels[:, None])
    rest = log_probs.masked_fill(is_target(logits, labels), -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([target, rest], 1)


@full_precision
def target_divergence(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """TCKD: `T^2 KL([p_t, 1 - p_t] || [q_t, 1 - q_t])`, with p_t and q_t the probabilities of the label.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        labels: Class indices [B].
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", 2022. https://arxiv.org/abs/2203.08679

    Example:
        TCKD does not depend on the order of the other classes.

        >>> z, v = torch.randn(1, 4), torch.randn(1, 4)
        >>> label = torch.tensor([0])
        >>> shuffled = v[:, [0, 3, 1, 2]]
        >>> torch.allclose(target_divergence(z, v, label, 4.0), target_divergence(z, shuffled, label, 4.0), atol=1e-6)
        True
    """
    log_p = _target_log_probs(teacher_logits.detach(), labels, temperature)
    log_q = _target_log_probs(student_logits, labels, temperature)
    return divergence(log_p, log_q) * temperature**2


@full_precision
def nontarget_divergence(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """NCKD: `T^2 KL` between the distributions over the C - 1 classes other than the label.

    With p_t the teacher's probability of the label at T, `T^2 KL(p || q) = TCKD + (1 - p_t) NCKD` for each sample, so
    plain KD suppresses this part where the teacher is certain.

    Args:
        student_logits: [B, C], C at least 3.
        teacher_logits: [B, C]; gets no gradient.
        labels: Class indices [B].
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", 2022. https://arxiv.org/abs/2203.08679

    Example:
        >>> z, v = torch.randn(2, 5), torch.randn(2, 5)
        >>> labels = torch.tensor([0, 3])
        >>> whole = divergence(v.log_softmax(1), z.log_softmax(1))
        >>> rest = 1 - v.softmax(1).gather(1, labels[:, None]).squeeze(1)
        >>> parts = target_divergence(z, v, labels, 1.0) + rest * nontarget_divergence(z, v, labels, 1.0)
        >>> torch.allclose(parts, whole, atol=1e-5)
        True
    """
    log_p = nontarget_log_probs(teacher_logits.detach(), labels, temperature)
    log_q = nontarget_log_probs(student_logits, labels, temperature)
    return divergence(log_p, log_q) * temperature**2


def require_nontarget_classes(spec: DataSpec, term: str) -> None:
    """Refuse data with fewer than 3 classes, which has no distribution over the classes other than the label.

    Raises:
        ValueError: There are fewer than 3 classes.

    Example:
        >>> from kdx.tasks.classes import image_classes
        >>> require_nontarget_classes(image_classes(10, (1, 8, 8), 100, (0.0,), (1.0,)), "DKD")
        >>> require_nontarget_classes(image_classes(2, (1, 8, 8), 100, (0.0,), (1.0,)), "DKD")
        Traceback (most recent call last):
        ValueError: DKD compares the probabilities of the classes other than the label and needs at least 3 classes; ...
    """
    if spec.num_classes < 3:
        raise ValueError(
            f"{term} compares the probabilities of the classes other than the label and needs at least 3 classes; "
            f"this data set has {spec.num_classes}"
        )


class DKD(Term):
    """TCKD and NCKD, each with a weight. Where samples are mixed, the label is the dominant class.

    Args:
        target_weight: Weight of TCKD, the paper's first coefficient; a number or a schedule.
        nontarget_weight: Weight of NCKD, the paper's second coefficient; a number or a schedule.
        temperature: T, a number or a schedule.
    """

    def __init__(
        self,
        target_weight: NonNegative | Schedule,
        nontarget_weight: NonNegative | Schedule,
        temperature: Positive | Schedule,
    ):
        super().__init__()
        self.target_weight, self.nontarget_weight, self.temperature = target_weight, nontarget_weight, temperature

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "DKD")
        require_nontarget_classes(spec, "DKD")
        require_labels(spec, "DKD")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        read = student.logits, teacher.logits, batch.labels, at(self.temperature, progress)
        target = at(self.target_weight, progress) * target_divergence(*read)
        return target + at(self.nontarget_weight, progress) * nontarget_divergence(*read)
