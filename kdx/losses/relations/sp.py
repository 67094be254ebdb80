"""Similarity-preserving distillation: the similarities between the samples of a batch."""

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import examples
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired


def similarities(features: Tensor) -> Tensor:
    """Dot products between the samples of a batch, each row scaled to length 1: [B, ...] to [B, B].

    Example:
        >>> similarities(torch.eye(2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    flat = examples(features)
    return unit(flat @ flat.T, 1)


@full_precision
def similarity_preservation(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Squared difference of the rows of the two similarity matrices, divided by B.

    The mean over the batch is the paper's `||G_t - G_s||_F^2 / B^2`. With several devices, the batch is the part on
    this device.

    Args:
        student_features: [B, ...].
        teacher_features: [B, ...]; gets no gradient.

    Returns:
        [B].

    References:
        Tung, Mori, "Similarity-Preserving Knowledge Distillation", 2019. https://arxiv.org/abs/1907.09682

    Example:
        >>> x = torch.randn(4, 3)
        >>> rotation = torch.linalg.qr(torch.randn(3, 3)).Q
        >>> similarity_preservation(2 * x @ rotation, x).max() < 1e-10  # rotation and scale do not matter
        tensor(True)
    """
    return (similarities(student_features) - similarities(teacher_features.detach())).square().mean(1)


class SP(Paired):
    """Difference of the similarity matrices of a batch. Any feature works: it is flattened.

    Args:
        student_role: The student's feature.
        teacher_role: The teacher's feature; its shape may differ.
    """

    tasks = None
    divisible = False
    called = "SP"

    def __init__(self, student_role: str, teacher_role: str):
        super().__init__({student_role: teacher_role})

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.shapes(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return similarity_preservation(mine, theirs)
