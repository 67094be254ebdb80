"""Tf-KD: a virtual teacher, a fixed distribution around the label."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import divergence
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Gt, Lt, Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_vector
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term
from kdx.losses.logits.dkd import is_target
from kdx.losses.logits.kd import kl_divergence

Softened = Literal["distribution", "probabilities"]
CorrectProb = Annotated[float, Gt(0), Lt(1)]


def virtual_probs(like: Tensor, labels: Tensor, correct_prob: float) -> Tensor:
    """`correct_prob` at the label, the rest spread evenly over the other classes.

    Args:
        like: A tensor [B, C] of the result's shape.
        labels: Class indices [B].
        correct_prob: Probability of the label.

    Returns:
        [B, C].

    Example:
        >>> virtual_probs(torch.zeros(1, 3), torch.tensor([1]), 0.5)
        tensor([[0.2500, 0.5000, 0.2500]])
    """
    rest = (1 - correct_prob) / (like.shape[1] - 1)
    return torch.full_like(like, rest).masked_fill(is_target(like, labels), correct_prob)


@full_precision
def virtual_divergence(
    student_logits: Tensor, labels: Tensor, correct_prob: float, temperature: float, softened: Softened
) -> Tensor:
    """Divergence of the student from a virtual teacher.

    Args:
        student_logits: [B, C], C at least 2.
        labels: Class indices [B].
        correct_prob: The virtual teacher's probability of the label, before softening.
        temperature: T, above 0.
        softened: 'distribution' is `T^2 KL(p_T || q_T)`, the paper's equation, with both sides at T (`p_T` proportional
            to `p^(1/T)`). 'probabilities' is the authors' code: the softmax of the probabilities p themselves over T,
            nearly uniform for any T, against the student at 1, without T^2.

    Raises:
        ValueError: An unknown value of `softened`.

    Returns:
        [B], in nats.

    References:
        Yuan, Tay, Li, Wang, Feng, "Revisiting Knowledge Distillation via Label Smoothing Regularization", 2020.
        https://arxiv.org/abs/1909.11723

    Example:
        A student with the virtual teacher's distribution has divergence 0.

        >>> labels = torch.tensor([1])
        >>> z = virtual_probs(torch.zeros(1, 3), labels, 0.9).log()
        >>> virtual_divergence(z, labels, 0.9, 20.0, "distribution").abs() < 1e-4
        tensor([True])
    """
    p = virtual_probs(student_logits.detach(), labels, correct_prob)
    if softened == "distribution":
        return kl_divergence(student_logits, p.log(), temperature, "batchmean")
    if softened == "probabilities":
        return divergence((p / temperature).log_softmax(1), student_logits.log_softmax(1))
    raise ValueError(f"softened must be 'distribution' or 'probabilities', got {softened!r}")


class VirtualTeacher(Term):
    """Divergence from a virtual teacher (Tf-KD reg). Where samples are mixed, the label is the dominant class.

    Args:
        correct_prob: The virtual teacher's probability of the label; a number or a schedule.
        temperature: T, a number or a schedule.
        softened: 'distribution' (the paper's equation) or 'probabilities' (the authors' code), see
            `virtual_divergence`.
    """

    needs_teacher = False

    def __init__(self, correct_prob: CorrectProb | Schedule, temperature: Positive | Schedule, softened: Softened):
        super().__init__()
        self.correct_prob, self.temperature = correct_prob, temperature
        self.softened: Softened = softened

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_vector(student, "student", "Tf-KD")
        require_labels(spec, "Tf-KD")
        if student.logits[0] < 2:
            raise ValueError("a virtual teacher spreads the rest over the other classes and needs at least 2 classes")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        numbers = at(self.correct_prob, progress), at(self.temperature, progress)
        return virtual_divergence(student.logits, batch.labels, *numbers, self.softened)
