"""Attention transfer: the positions of an image at which activations are large."""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Ge
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import positions
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Roles


def to_common_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool two maps to the smaller height and the smaller width of the two.

    Args:
        first: [B, C, H, W].
        second: [B, C', H', W'].

    Returns:
        The two maps; a map that has this size already is returned as it is.

    Example:
        >>> [m.shape[2:] for m in to_common_size(torch.zeros(1, 3, 8, 8), torch.zeros(1, 5, 4, 4))]
        [torch.Size([4, 4]), torch.Size([4, 4])]
    """
    size = min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3])
    pooled = [x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (first, second)]
    return pooled[0], pooled[1]


def attention(features: Tensor, power: float) -> Tensor:
    """Mean over channels of `|f|^power`, flattened and scaled to length 1: [B, C, H, W] to [B, H * W].

    Example:
        >>> attention(torch.tensor([[[[3.0, 4.0]], [[3.0, 4.0]]]]), 1.0)
        tensor([[0.6000, 0.8000]])
    """
    return unit(positions(features).abs().pow(power).mean(2), 1)


@full_precision
def attention_transfer(student_features: Tensor, teacher_features: Tensor, power: float) -> Tensor:
    """Mean over positions of the squared difference of the two attention maps.

    The larger map is pooled to the smaller one first. The published weight of 1000 belongs to the mean over positions,
    not to the paper's norm.

    Args:
        student_features: [B, C, H, W].
        teacher_features: [B, C', H', W']; gets no gradient.
        power: Exponent of the activations.

    Returns:
        [B].

    References:
        Zagoruyko, Komodakis, "Paying More Attention to Attention: Improving the Performance of
        Convolutional Neural Networks via Attention Transfer", 2017. https://arxiv.org/abs/1612.03928

    Example:
        The attention does not depend on the scale of the features.

        >>> f = torch.randn(2, 3, 4, 4)
        >>> attention_transfer(f, 5 * f, 2.0).abs().max() < 1e-12
        tensor(True)
    """
    mine, theirs = to_common_size(student_features, teacher_features.detach())
    return (attention(mine, power) - attention(theirs, power)).square().mean(1)


class AT(Paired):
    """Attention transfer, summed over pairs of maps.

    Args:
        roles: Maps to compare: a list names the same roles on both sides, a mapping goes from the student's
            role to the teacher's. None for all stages but the stem, as published.
        power: Exponent of the activations, at least 1; a number or a schedule.
    """

    called = "AT"

    def __init__(self, roles: Roles | None, power: Annotated[float, Ge(1)] | Schedule):
        super().__init__(roles)
        self.power = power

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.maps_of_positions(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        power = at(self.power, progress)
        rows = [attention_transfer(mine, theirs, power) for mine, theirs in self.features(student, teacher)]
        return torch.stack(rows).sum(0)
