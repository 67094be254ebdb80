"""ReviewKD: deep features of the student look back at shallow ones, and all learn from the teacher's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.adapters import Norm
from kdx.losses.numerics import full_precision
from kdx.losses.pairs import Paired, Roles

LEVELS = (4, 2, 1)
"""Sides of the pooled maps that are compared besides the map itself."""


@full_precision
def hierarchical_distance(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """HCL: mean squared difference of the maps and of coarser and coarser versions of them.

    The map itself counts 1, and each pooled version (4 x 4, 2 x 2, 1 x 1, as far as they are smaller) half as
    much as the one before, divided by what they add up to.

    Args:
        student_features: [B, C, H, W], in the teacher's shape.
        teacher_features: [B, C, H, W]; gets no gradient.

    Returns:
        [B].

    References:
        Chen, Liu, Zhao, Jia, "Distilling Knowledge via Knowledge Review", 2021. https://arxiv.org/abs/2104.09044
    """
    # pooling is linear: the difference is pooled once instead of both maps
    gaps = student_features - teacher_features.detach()
    rows, total, weight = gaps.square().flatten(1).mean(1), 1.0, 1.0
    for side in (side for side in LEVELS if side < gaps.shape[2]):
        weight /= 2
        total += weight
        rows = rows + weight * F.adaptive_avg_pool2d(gaps, side).square().flatten(1).mean(1)
    return rows / total


class _Fusion(nn.Module):
    """ABF: mixes the student's map with what comes from deeper ones, position by position.

    Args:
        inputs: Channels of the student's map.
        middle: Channels of the mixture.
        outputs: Channels of the teacher's map.
        fuse: Whether something comes from deeper; not so at the deepest.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, fuse: bool):
        super().__init__()
        reduce, predict = nn.Conv2d(inputs, middle, 1, bias=False), nn.Conv2d(middle, outputs, 3, padding=1, bias=False)
        for conv in (reduce, predict):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        self.reduce, self.predict = nn.Sequential(reduce, Norm(middle)), nn.Sequential(predict, Norm(outputs))
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuse else None

    def forward(self, x: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The predicted map at the teacher's size, and the mixture for the next shallower map."""
        x = self.reduce(x)
        if self.attention is not None and deeper is not None:
            mine, theirs = self.attention.weight.split(x.shape[1], 1)
            # a 1 x 1 convolution before the enlargement is that after it, at a fraction of the positions
            shares = F.conv2d(x, mine, self.attention.bias) + _resized(F.conv2d(deeper, theirs), x.shape[2:])
            shares = shares.sigmoid()
            x = x * shares[:, :1] + _resized(deeper, x.shape[2:]) * shares[:, 1:]
        x = _resized(x, size)
        return self.predict(x), x


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="nearest")


class ReviewKD(Paired):
    """Distance of the fused student's maps to the teacher's, summed over pairs.

    From the deepest pair to the shallowest, each of the student's maps is mixed with the mixture before it and
    predicts the teacher's. Vectors are maps of one position.

    Args:
        roles: From shallow to deep: a list names the same roles on both sides, a mapping goes from the
            student's role to the teacher's. As published: stages and the pooled vector, the teacher's stages
            before their ReLU.
        middle: Most channels of the mixtures; they have no more than the student's deepest feature.
    """

    called = "ReviewKD"

    def __init__(self, roles: Roles, middle: PositiveInt):
        super().__init__(roles)
        self.middle = middle
        self.fusions = nn.ModuleList()

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        shapes = []
        for both, (mine, theirs) in zip(self.shapes(student, teacher), self.pairs, strict=True):
            if any(len(shape) not in (1, 3) for shape in both):
                raise ValueError(
                    f"ReviewKD reads maps [B, C, H, W] and vectors [B, C]; without the batch axis, the student's "
                    f"'{mine}' has shape {both[0]}, the teacher's '{theirs}' {both[1]}"
                )
            shapes.append(both)
        middle, last = min(self.middle, shapes[-1][0][0]), len(shapes) - 1
        self.fusions = nn.ModuleList(
            _Fusion(mine[0], middle, theirs[0], i < last) for i, (mine, theirs) in enumerate(shapes)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        rows, mixture = [], None
        pairs = [(_as_map(mine), _as_map(theirs)) for mine, theirs in self.features(student, teacher)]
        for fusion, (mine, theirs) in zip(reversed(self.fusions), reversed(pairs), strict=True):
            predicted, mixture = fusion(mine, mixture, theirs.shape[2:])
            rows.append(hierarchical_distance(predicted, theirs))
        return torch.stack(rows).sum(0)


def _as_map(feature: Tensor) -> Tensor:
    return feature[:, :, None, None] if feature.ndim == 2 else feature
