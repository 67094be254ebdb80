"""SKD: pairwise similarity of the places of one image, from structured knowledge distillation."""

from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import positions
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired


@full_precision
def pairwise_similarity(student_features: Tensor, teacher_features: Tensor, grid: int) -> Tensor:
    """Mean squared difference of the cosines between all pairs of places of an image.

    Both maps are average-pooled to the same grid of places first. Cosines need no equal numbers of channels.

    Args:
        student_features: [B, C, H, W].
        teacher_features: [B, C', H', W']; gets no gradient.
        grid: Largest number of places along each side; no more than the smaller map has.

    Returns:
        [B].

    References:
        Liu, Chen, Liu, Qin, Luo, Wang, "Structured Knowledge Distillation for Semantic Segmentation", 2019.
        https://arxiv.org/abs/1903.04197

    Example:
        Rotated features have the same cosines.

        >>> maps, (rotation, _) = torch.randn(2, 3, 4, 4), torch.linalg.qr(torch.randn(3, 3))
        >>> pairwise_similarity(torch.einsum("ij,bjhw->bihw", rotation, maps), maps, 4).max() < 1e-6
        tensor(True)
    """
    maps = student_features, teacher_features.detach()
    size = min(grid, *(m.shape[2] for m in maps)), min(grid, *(m.shape[3] for m in maps))
    nodes = [unit(positions(F.adaptive_avg_pool2d(m, size)), 2) for m in maps]
    ours, theirs = (n @ n.mT for n in nodes)
    return (ours - theirs).square().mean((1, 2))


class SKD(Paired):
    """Squared difference of the cosines between all pairs of places of an image.

    Args:
        student_role: The student's map.
        teacher_role: The teacher's map.
        grid: Largest number of places along each side, after average pooling.
    """

    called = "SKD"

    def __init__(self, student_role: str, teacher_role: str, grid: PositiveInt):
        super().__init__({student_role: teacher_role})
        self.grid = grid

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.maps_of_positions(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return pairwise_similarity(mine, theirs, self.grid)
