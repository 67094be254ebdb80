"""PKD of detectors: the student's maps correlate with the teacher's, channel by channel."""

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Roles
from kdx.losses.features.at import to_common_size

EPS = 1e-6


@full_precision
def pearson_distance(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """`1 - r` for Pearson's correlation r of each channel over batch and positions, averaged over channels.

    It is half the squared distance of the maps, each channel with mean 0 and variance 1 over the batch. The mean over
    the batch is the distance; an example's value is its share.

    Args:
        student_features: [B, C, H, W], with the teacher's shape.
        teacher_features: [B, C, H, W]; gets no gradient.

    Returns:
        [B].

    References:
        Cao, Zhang, Gao, Cheng, Cheng, Zhang, "PKD: General Distillation Framework for Object Detectors via Pearson
        Correlation Coefficient", 2022. https://arxiv.org/abs/2207.02039

    Example:
        Scale and shift of a channel do not matter.

        >>> maps = torch.randn(2, 3, 4, 4)
        >>> pearson_distance(5 * maps - 2, maps).abs().max() < 1e-5
        tensor(True)
    """
    a, b = (_standardised(maps) for maps in (student_features, teacher_features.detach()))
    return (a - b).square().mean((1, 2, 3)) / 2


def _standardised(maps: Tensor) -> Tensor:
    mean = maps.mean((0, 2, 3), keepdim=True)
    return (maps - mean) / (maps - mean).square().mean((0, 2, 3), keepdim=True).add(EPS**2).sqrt()


class Pearson(Paired):
    """Distance from full correlation of each channel of the student's maps with the teacher's, summed over pairs.

    Where the numbers of channels differ, a 1 x 1 convolution maps the student's feature to the teacher's channels; the
    larger map is pooled to the smaller one.

    Args:
        roles: A list names the same roles on both sides, a mapping goes from the student's role to the teacher's; None
            for all stages but the stem.
    """

    called = "Pearson"
    divisible = False  # the statistics are those of the batch

    def __init__(self, roles: Roles | None):
        super().__init__(roles)
        self.align = nn.ModuleList()

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.align = nn.ModuleList(
            nn.Identity() if mine[0] == theirs[0] else nn.Conv2d(mine[0], theirs[0], 1)
            for mine, theirs in self.maps(student, teacher)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        rows = []
        for align, (mine, theirs) in zip(self.align, self.features(student, teacher), strict=True):
            rows.append(pearson_distance(*to_common_size(align(mine), theirs)))
        return torch.stack(rows).sum(0)
