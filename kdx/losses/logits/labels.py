"""Binary cross-entropy with the labels of multi-label data."""

from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.core.task import LABELS
from kdx.losses.base.checks import require_vector
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term
from kdx.losses.logits.kd import Reduction, over_classes


@full_precision
def label_cross_entropy(student_logits: Tensor, presence: Tensor, reduction: Reduction) -> Tensor:
    """Binary cross-entropy of each label, the student's logits being log-odds.

    Args:
        student_logits: [B, C].
        presence: Probability that each label holds, [B, C] in [0, 1]; 0 and 1 for plain labels.
        reduction: 'mean' over labels, or 'batchmean' for their sum.

    Returns:
        [B], in nats.

    Raises:
        ValueError: The shapes differ, or the reduction is unknown.

    Example:
        >>> import torch
        >>> label_cross_entropy(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), "batchmean")
        tensor([1.3863])
    """
    if student_logits.ndim != 2 or student_logits.shape != presence.shape:
        raise ValueError(
            f"binary cross-entropy compares logits [B, C] with labels [B, C], "
            f"got {list(student_logits.shape)} and {list(presence.shape)}"
        )
    cells = F.binary_cross_entropy_with_logits(student_logits, presence.to(student_logits.dtype), reduction="none")
    return over_classes(cells.sum(1), cells.shape[1], reduction)


class LabelCrossEntropy(Term):
    """Binary cross-entropy of the student's logits with the batch's labels, for data with several labels an example.

    Args:
        reduction: 'mean' (over labels) or 'batchmean' (their sum).
    """

    tasks = frozenset({LABELS})
    needs_teacher = False

    def __init__(self, reduction: Reduction):
        super().__init__()
        self.reduction: Reduction = reduction

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_vector(student, "student", type(self).__name__)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return label_cross_entropy(student.logits, batch.target("presence"), self.reduction)
