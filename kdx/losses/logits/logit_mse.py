"""Regression of the teacher's logits."""

from typing import Literal

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.core.task import CLASSES, VALUES
from kdx.losses.base.checks import require_same_logits
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term

Reduction = Literal["half_sum", "mean"]


@full_precision
def logit_mse(student_logits: Tensor, teacher_logits: Tensor, reduction: Reduction) -> Tensor:
    """Squared difference of the raw logits: without a softmax, differences between unlikely classes count fully.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        reduction: 'half_sum' is the paper's half of the sum over classes; 'mean' is the mean over classes.

    Returns:
        [B].

    References:
        Ba, Caruana, "Do Deep Nets Really Need to be Deep?", 2014. https://arxiv.org/abs/1312.6184

    Example:
        >>> z, v = torch.zeros(1, 4), torch.full((1, 4), 2.0)
        >>> logit_mse(z, v, "half_sum"), logit_mse(z, v, "mean")
        (tensor([8.]), tensor([4.]))
    """
    squares = (student_logits - teacher_logits.detach()).square()
    if reduction == "half_sum":
        return 0.5 * squares.sum(1)
    if reduction == "mean":
        return squares.mean(1)
    raise ValueError(f"reduction must be 'half_sum' or 'mean', got {reduction!r}")


class LogitMSE(Term):
    """Squared difference of student's and teacher's logits.

    Args:
        reduction: 'half_sum' (half of the sum over classes) or 'mean' (over classes).
    """

    tasks = frozenset({CLASSES, VALUES})

    def __init__(self, reduction: Reduction):
        super().__init__()
        self.reduction: Reduction = reduction

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "logit MSE")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return logit_mse(student.logits, teacher.logits, self.reduction)
