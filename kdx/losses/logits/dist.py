"""DIST: match correlations instead of exact values, over the classes of a sample and over the samples of a class."""

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import centred, unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative, Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_same_logits
from kdx.losses.base.numerics import full_precision, soft_log_probs
from kdx.losses.base.term import Term


def correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson correlation along `dim`; 0 where one side is constant.

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 4.0]])
        >>> torch.allclose(correlation(x, 3 * x + 1, 1), torch.ones(1))
        True
    """
    return (unit(centred(x, dim), dim) * unit(centred(y, dim), dim)).sum(dim)


@full_precision
def inter_class(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 (1 - correlation)` of student's and teacher's probabilities over the classes of each sample.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.

    Returns:
        [B].

    References:
        Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher", 2022.
        https://arxiv.org/abs/2205.10536

    Example:
        >>> z = torch.randn(4, 5)
        >>> inter_class(z + 1, z, 1.0).abs().max() < 1e-6  # softmax does not depend on a constant
        tensor(True)
    """
    q, p = (soft_log_probs(z, temperature).exp() for z in (student_logits, teacher_logits.detach()))
    return temperature**2 * (1 - correlation(q, p, 1))


@full_precision
def intra_class(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 (1 - correlation)` of the probabilities of each class over the batch, averaged over classes.

    A value of the batch as a whole, so every example has the same value.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.

    Returns:
        [B].

    References:
        Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher", 2022.
        https://arxiv.org/abs/2205.10536

    Example:
        >>> z = torch.randn(4, 5)
        >>> intra_class(z, z, 1.0).abs().max() < 1e-6
        tensor(True)
    """
    q, p = (soft_log_probs(z, temperature).exp() for z in (student_logits, teacher_logits.detach()))
    value = temperature**2 * (1 - correlation(q, p, 0)).mean()
    return value.expand(len(q))


class DIST(Term):
    """Correlation with the teacher, within each sample and within each class.

    Args:
        inter_weight: Weight of the correlation over classes; a number or a schedule.
        intra_weight: Weight of the correlation over the batch; a number or a schedule.
        temperature: T, a number or a schedule.
    """

    divisible = False

    def __init__(
        self,
        inter_weight: NonNegative | Schedule,
        intra_weight: NonNegative | Schedule,
        temperature: Positive | Schedule,
    ):
        super().__init__()
        self.inter_weight, self.intra_weight, self.temperature = inter_weight, intra_weight, temperature

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "DIST")
        if spec.num_classes < 3 and self.inter_weight != 0:
            raise ValueError(
                "DIST's correlation over classes is 1 or -1 for any two classes and needs at least 3 classes; "
                f"this data set has {spec.num_classes}; inter_weight=0 keeps the correlation over the batch"
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        read = student.logits, teacher.logits, at(self.temperature, progress)
        inter = at(self.inter_weight, progress) * inter_class(*read)
        return inter + at(self.intra_weight, progress) * intra_class(*read)
