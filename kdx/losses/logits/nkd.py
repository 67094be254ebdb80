"""NKD: soft cross-entropy, split into the label and the normalised other classes."""

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative, Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_same_logits
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term
from kdx.losses.logits.dkd import is_target, nontarget_log_probs, require_nontarget_classes


@full_precision
def target_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """`-p_t log q_t` at temperature 1: the hard loss, weighted by the teacher's probability of the label.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        labels: Class indices [B].

    Returns:
        [B], in nats.

    References:
        Yang, Zeng, Li, Zhang, Yuan, Li, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
        Approach with Normalized Loss and Customized Soft Labels", 2023. https://arxiv.org/abs/2303.13005

    Example:
        >>> certain = torch.tensor([[100.0, 0.0]])
        >>> target_cross_entropy(torch.zeros(1, 2), certain, torch.tensor([0]))  # log 2
        tensor([0.6931])
    """
    p, log_q = teacher_logits.detach().softmax(1), student_logits.log_softmax(1)
    return -(p * log_q).gather(1, labels[:, None]).squeeze(1)


@full_precision
def nontarget_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """`T^2` cross-entropy between the distributions over the C - 1 classes other than the label.

    Args:
        student_logits: [B, C], C at least 3.
        teacher_logits: [B, C]; gets no gradient.
        labels: Class indices [B].
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        Yang, Zeng, Li, Zhang, Yuan, Li, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
        Approach with Normalized Loss and Customized Soft Labels", 2023. https://arxiv.org/abs/2303.13005

    Example:
        >>> value = nontarget_cross_entropy(torch.zeros(1, 3), torch.randn(1, 3), torch.tensor([0]), 1.0)
        >>> torch.allclose(value, torch.tensor([2.0]).log())  # a uniform student: log(C - 1)
        True
    """
    p = nontarget_log_probs(teacher_logits.detach(), labels, temperature).exp()
    log_q = nontarget_log_probs(student_logits, labels, temperature)
    return -(p * log_q.masked_fill(is_target(log_q, labels), 0.0)).sum(1) * temperature**2


class NKD(Term):
    """Target part plus weighted non-target part. Where samples are mixed, the label is the dominant class.

    Args:
        nontarget_weight: Weight of the non-target part; a number or a schedule.
        temperature: T of the non-target part, a number or a schedule; the target part is at 1.
    """

    def __init__(self, nontarget_weight: NonNegative | Schedule, temperature: Positive | Schedule):
        super().__init__()
        self.nontarget_weight, self.temperature = nontarget_weight, temperature

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "NKD")
        require_nontarget_classes(spec, "NKD")
        require_labels(spec, "NKD")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        read = student.logits, teacher.logits, batch.labels
        rest = nontarget_cross_entropy(*read, at(self.temperature, progress))
        return target_cross_entropy(*read) + at(self.nontarget_weight, progress) * rest
