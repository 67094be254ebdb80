"""Attention transfer: where in the image the activations are large."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from kdx.core.schedule import Progress, Schedule, at
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.base.checks import pair_roles, require_map, require_teacher
from kdx.losses.base.memory_format import positions
from kdx.losses.base.numerics import full_precision, unit
from kdx.losses.base.term import Term


def to_common_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool two maps [B, C, H, W] down to the smaller height and the smaller width of the two."""
    size = min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3])
    pooled = [x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (first, second)]
    return pooled[0], pooled[1]


def attention(features: Tensor, power: float) -> Tensor:
    """Mean over channels of `|f|^power`, flattened and scaled to length 1: [B, C, H, W] to [B, H * W]."""
    return unit(positions(features).abs().pow(power).mean(2), 1)


@full_precision
def attention_transfer(student_features: Tensor, teacher_features: Tensor, power: float) -> Tensor:
    """Mean over positions of the squared difference of the two attention maps.

    The larger map is pooled down to the smaller one first. The mean, not the paper's norm, is what the
    published weight of 1000 belongs to.

    Args:
        student_features: [B, C, H, W].
        teacher_features: [B, C', H', W']; gets no gradient.
        power: Exponent of the activations.

    Returns:
        [B].

    References:
        Zagoruyko, Komodakis, "Paying More Attention to Attention: Improving the Performance of
        Convolutional Neural Networks via Attention Transfer", 2017. https://arxiv.org/abs/1612.03928
    """
    mine, theirs = to_common_size(student_features, teacher_features.detach())
    return (attention(mine, power) - attention(theirs, power)).square().mean(1)


class AT(Term):
    """Attention transfer, summed over pairs of maps.

    Args:
        roles: Maps to compare: a list names the same roles on both sides, a mapping goes from the student's
            role to the teacher's.
        power: Exponent of the activations, at least 1; a number or a schedule.
    """

    tasks = None

    def __init__(self, roles: Sequence[str] | Mapping[str, str], power: Annotated[float, Ge(1)] | Schedule):
        super().__init__()
        self.pairs = pair_roles(roles, "AT")
        self.power = power

    def student_roles(self) -> tuple[str, ...]:
        return tuple(mine for mine, _ in self.pairs)

    def teacher_roles(self) -> tuple[str, ...]:
        return tuple(theirs for _, theirs in self.pairs)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = require_teacher(teacher, "AT")
        for mine, theirs in self.pairs:
            require_map(student.feature(mine, "student"), mine, "student", "AT")
            require_map(teacher.feature(theirs, "teacher"), theirs, "teacher", "AT")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        power = at(self.power, progress)
        first, *rest = (
            attention_transfer(student.feature(mine), teacher.feature(theirs), power) for mine, theirs in self.pairs
        )
        return sum(rest, first)
