"""Soft targets made of the label and noise: a control without a teacher."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative, Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_vector
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term


@full_precision
def random_target_cross_entropy(student_logits: Tensor, labels: Tensor, std: float, temperature: float) -> Tensor:
    """Cross-entropy with the softmax of the label's one-hot vector plus noise: `H(softmax((e_y + xi) / T), q)`.

    xi ~ N(0, std^2), drawn anew for each call from the global stream of the logits' device; without noise, nothing is
    drawn.

    Args:
        student_logits: [B, C].
        labels: Class indices [B].
        std: Standard deviation of the noise.
        temperature: T of the targets, above 0; the student is at 1.

    Returns:
        [B], in nats.

    References:
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023, appendix.
        https://arxiv.org/abs/2205.16004

    Example:
        >>> loss = random_target_cross_entropy(torch.zeros(1, 4), torch.tensor([2]), 0.2, 0.15)
        >>> torch.allclose(loss.exp(), torch.tensor(4.0))  # a uniform prediction, whatever the target
        True
    """
    scores = F.one_hot(labels, student_logits.shape[1]).to(student_logits)
    if std:
        scores = scores + std * torch.randn_like(scores)
    return -((scores / temperature).softmax(1) * student_logits.log_softmax(1)).sum(1)


class RandomTargets(Term):
    """Cross-entropy with random soft targets around the label; of mixed samples, the dominant class.

    Args:
        std: Standard deviation of the noise; a number or a schedule.
        temperature: T of the targets; a number or a schedule.
    """

    needs_teacher = False

    def __init__(self, std: NonNegative | Schedule, temperature: Positive | Schedule):
        super().__init__()
        self.std, self.temperature = std, temperature

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_vector(student, "student", "RandomTargets")
        require_labels(spec, "RandomTargets")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        numbers = at(self.std, progress), at(self.temperature, progress)
        return random_target_cross_entropy(student.logits, batch.labels, *numbers)
