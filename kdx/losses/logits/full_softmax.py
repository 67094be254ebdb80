"""A specialist that keeps all classes: labels of its own classes, a generalist's probabilities for the others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_same_logits
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term
from kdx.losses.logits.cross_entropy import cross_entropy


@full_precision
def full_softmax(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Cross-entropy with the label for examples of some classes, and with the teacher's probabilities for the others.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        labels: [B]; an unlabelled example (-1) belongs to no class.
        classes: The specialist's classes.

    Returns:
        [B], in nats.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 6.1, which proposes it
        against overfitting and reports no numbers. https://arxiv.org/abs/1503.02531

    Example:
        >>> sure = torch.tensor([[0.0, 0.0, 90.0]])  # the teacher is sure of class 2, the label says 1
        >>> z = torch.tensor([[0.0, 1.0, 0.0]])
        >>> hard, soft = (full_softmax(z, sure, torch.tensor([1]), classes) for classes in ([1], [0]))
        >>> round(float(soft - hard), 4)  # z_1 - z_2
        1.0
    """
    hard = cross_entropy(student_logits, labels, 0.0)
    soft = -(teacher_logits.detach().softmax(1) * student_logits.log_softmax(1)).sum(1)
    own = torch.isin(labels, torch.tensor(list(classes), device=labels.device))
    return torch.where(own, hard, soft)


class FullSoftmax(Term):
    """`full_softmax` with the generalist as the teacher. Where samples are mixed, the label is the dominant class.

    Args:
        classes: The specialist's classes.
    """

    def __init__(self, classes: Sequence[int]):
        super().__init__()
        self.classes = list(classes)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "FullSoftmax")
        require_labels(spec, "FullSoftmax")
        if not self.classes or min(self.classes) < 0 or max(self.classes) >= spec.num_classes:
            raise ValueError(
                f"FullSoftmax needs classes from 0 to {spec.num_classes - 1}, the specialist's, got {self.classes}"
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return full_softmax(student.logits, teacher.logits, batch.labels, self.classes)
