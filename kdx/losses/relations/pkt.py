"""PKT: a batch's similarities as probabilities of being neighbours."""

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired

EPSILON = 1e-7
"""Keeps the logarithm of a probability of 0 finite; the authors' value."""


def neighbour_probs(features: Tensor) -> Tensor:
    """(cosine + 1) / 2 between the samples of a batch, each row scaled to sum 1: [B, ...] to [B, B].

    Example:
        >>> neighbour_probs(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        tensor([[1., 0.],
                [0., 1.]])
    """
    flat = unit(features.flatten(1), 1)
    # rounding puts the cosine of opposite vectors a little below -1
    similar = ((flat @ flat.T + 1) / 2).clamp(min=0)
    return similar / similar.sum(1, keepdim=True)


@full_precision
def probabilistic_transfer(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Divergence of the student's neighbour probabilities from the teacher's, per row, divided by B.

    The mean over the batch is the mean over all B^2 entries, not the sum: the published weight of 30000 belongs to it.

    Args:
        student_features: [B, ...].
        teacher_features: [B, ...]; gets no gradient.

    Returns:
        [B].

    References:
        Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", 2018.
        https://arxiv.org/abs/1803.10837

    Example:
        >>> x = torch.randn(4, 3)
        >>> probabilistic_transfer(2 * x, x).abs().max() < 1e-6  # scale does not matter
        tensor(True)
    """
    p, q = neighbour_probs(teacher_features.detach()), neighbour_probs(student_features)
    return (p * ((p + EPSILON) / (q + EPSILON)).log()).mean(1)


class PKT(Paired):
    """Divergence of neighbour probabilities within a batch. Any feature works: it is flattened.

    Args:
        student_role: The student's feature, usually the pooled one.
        teacher_role: The teacher's feature; its width may differ.
    """

    tasks = None
    divisible = False
    called = "PKT"

    def __init__(self, student_role: str, teacher_role: str):
        super().__init__({student_role: teacher_role})

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.shapes(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return probabilistic_transfer(mine, theirs)
