"""Distance of two networks' Jacobians."""

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired

ROLE = "jacobian"
"""Key under which a method passes Jacobians, or a few of their projections, to its terms."""


@full_precision
def jacobian_distance(student_jacobian: Tensor, teacher_jacobian: Tensor) -> Tensor:
    """Squared Frobenius distance: the sum of the squared differences of an example.

    Args:
        student_jacobian: [B, P, ...]: P rows or columns of the Jacobian, or P projections of it.
        teacher_jacobian: [B, P, ...]; gets no gradient.

    Returns:
        [B].

    References:
        Czarnecki, Osindero, Jaderberg, Swirszcz, Pascanu, "Sobolev Training for Neural Networks", 2017.
        https://arxiv.org/abs/1706.04859

    Example:
        >>> jacobian_distance(torch.zeros(1, 2, 3), torch.ones(1, 2, 3))
        tensor([6.])
    """
    return (student_jacobian - teacher_jacobian.detach()).flatten(1).square().sum(1)


class JacobianDistance(Paired):
    """Squared distance of the two networks' Jacobians, which a method such as `Sobolev` computes or estimates."""

    called = "JacobianDistance"

    def __init__(self):
        super().__init__([ROLE])

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.shapes(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return jacobian_distance(mine, theirs)
