"""KD-SVD: the leading singular vectors of a layer's features, and their relations to the next layer's."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import positions
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Roles

SPARE = 3
"""How many more of the student's directions than of the teacher's are candidates for a match."""


class _Directions(torch.autograd.Function):
    """Right singular vectors of the largest singular values of matrices [B, P, N]: [B, N, K], largest first.

    They are eigenvectors of the products [B, N, N]. The backward pass of `torch.linalg.eigh` divides 0 by 0 wherever
    two eigenvalues are equal, and dead features make many zeros. This backward pass skips pairs of equal eigenvalues,
    as the paper truncates its gradient. The gradient of a product has rank 2 K at most.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, count: int) -> Tensor:
        values, vectors = torch.linalg.eigh(matrices.mT @ matrices)
        ctx.save_for_backward(matrices, values, vectors)
        ctx.count = count
        return vectors[..., -count:].flip(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        matrices, values, vectors = ctx.saved_tensors
        wanted, chosen = values[..., -ctx.count :].flip(-1), vectors[..., -ctx.count :].flip(-1)
        gaps = wanted[:, None, :] - values[:, :, None]
        alike = gaps.abs() <= torch.finfo(values.dtype).eps ** 0.5 * values[:, -1, None, None].abs()
        moved = vectors @ torch.where(alike, 0.0, (vectors.mT @ gradients[0]) / torch.where(alike, 1.0, gaps))
        both = torch.cat([moved, chosen], 2)
        return (matrices @ both) @ both.roll(ctx.count, 2).mT, None


def _directions(matrices: Tensor, count: int) -> Tensor:
    found = _Directions.apply(matrices, count)
    assert isinstance(found, Tensor)
    return found


@full_precision
def main_directions(features: Tensor, count: int) -> Tensor:
    """Right singular vectors of the map seen as a matrix [positions, channels], times their singular values.

    Args:
        features: [B, C, H, W].
        count: K; fewer where the matrix has fewer.

    Returns:
        [B, C, K], largest first, each in any sign.

    Example:
        >>> maps = torch.randn(2, 3, 4, 4)
        >>> values = torch.linalg.svdvals(maps.flatten(2))
        >>> torch.allclose(main_directions(maps, 2).norm(dim=1), values[:, :2], atol=1e-4)
        True
    """
    matrix = positions(features)
    count = min(count, *matrix.shape[1:])
    if matrix.shape[1] < matrix.shape[2]:  # the smaller of the two products has the same eigenvalues
        return matrix.mT @ _directions(matrix.mT, count)
    vectors = _directions(matrix, count)
    return vectors * (matrix @ vectors).detach().norm(dim=1, keepdim=True)


def aligned(candidates: Tensor, targets: Tensor) -> Tensor:
    """Choose, for each target, the candidate on the closest line, with the sign that points towards the target.

    Args:
        candidates: [B, C, K'].
        targets: [B, C, K].

    Returns:
        [B, C, K].

    Example:
        >>> targets = torch.eye(3)[None, :, :2]
        >>> torch.equal(aligned(-targets.flip(2), targets), targets)
        True
    """
    cosines = candidates.mT @ targets
    best = cosines.abs().argmax(1, keepdim=True)
    sign = cosines.gather(1, best).sign()
    return candidates.gather(2, best.expand(-1, candidates.shape[1], -1)) * sign


def relations(shallow: Tensor, deep: Tensor) -> Tensor:
    """Gaussian kernel of every entry of one layer's directions with every entry of another's.

    Args:
        shallow: [B, C, K].
        deep: [B, D, K].

    Returns:
        [B, D, C, K].

    Example:
        >>> relations(torch.zeros(1, 3, 2), torch.zeros(1, 4, 2)).unique()
        tensor([1.])
    """
    return torch.exp(-(deep[:, :, None] - shallow[:, None]).square() / 8)


class KDSVD(Paired):
    """Squared difference of the relations between consecutive maps' main directions, summed.

    Student and teacher must have the same channels at each map. The sign of a singular vector is arbitrary: the entries
    of each of the teacher's vectors are given a positive sum, and the student's vectors take the closest sign.

    Args:
        roles: At least two maps, from shallow to deep: a list names the same roles on both sides, a mapping
            goes from the student's role to the teacher's. None for all stages but the stem.
        directions: How many of the teacher's directions are compared.

    References:
        Lee, Kim, Song, "Self-supervised Knowledge Distillation Using Singular Value Decomposition", 2018.
        https://arxiv.org/abs/1807.06819
    """

    called = "KD-SVD"

    def __init__(self, roles: Roles | None, directions: PositiveInt):
        super().__init__(roles)
        if roles is not None and len(self.pairs) < 2:
            raise ValueError("KD-SVD compares relations between maps and needs at least two roles")
        self.directions = directions

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        maps = self.maps(student, teacher)
        if len(maps) < 2:
            raise ValueError("KD-SVD compares relations between maps and needs at least two roles")
        for (mine, theirs), (role, other) in zip(maps, self.pairs, strict=True):
            if mine[0] != theirs[0]:
                raise ValueError(
                    f"KD-SVD compares directions among channels, but the student's '{role}' has {mine[0]} channels and "
                    f"the teacher's '{other}' {theirs[0]}; take a pair of the same widths"
                )
            if self.directions > min(theirs[0], theirs[1] * theirs[2]):
                raise ValueError(
                    f"KD-SVD compares directions={self.directions} vectors, and the teacher's '{other}' has fewer"
                )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        layers = [self._directions(*pair) for pair in self.features(student, teacher)]
        rows = [
            (relations(shallow[0], deep[0]) - relations(shallow[1], deep[1])).square().flatten(1).sum(1)
            for shallow, deep in pairwise(layers)
        ]
        return torch.stack(rows).sum(0)

    def _directions(self, mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            scaled = main_directions(theirs, self.directions)
            vectors = unit(torch.where(scaled.sum(1, keepdim=True) < 0, -scaled, scaled), 1)
            shares = unit(scaled.norm(dim=1, keepdim=True), 2)
        candidates = unit(main_directions(mine, self.directions + SPARE), 1)
        return aligned(candidates, vectors) * shares, vectors * shares
