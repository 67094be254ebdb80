"""VID: a lower bound of the mutual information between student's and teacher's features."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.ranges import Positive
from kdx.core.schedule import Progress
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.base.checks import pair_roles, require_map, require_teacher
from kdx.losses.base.memory_format import positions
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term
from kdx.losses.features.at import to_common_size

LEAST_VARIANCE = 1e-5
"""Added to every variance, so that a channel that is predicted perfectly cannot make the loss unbounded."""


@full_precision
def gaussian_nll(predicted: Tensor, teacher_features: Tensor, variance: Tensor) -> Tensor:
    """Mean over channels and positions of `(f - mu)^2 / (2 var) + log(var) / 2`, the constant left out.

    Args:
        predicted: mu, [B, C, H, W].
        teacher_features: f, [B, C, H, W]; gets no gradient.
        variance: One for each channel, [C].

    Returns:
        [B].

    References:
        Ahn, Hu, Damianou, Lawrence, Dai, "Variational Information Distillation for Knowledge Transfer", 2019.
        https://arxiv.org/abs/1904.05835
    """
    # a channel's variance is that of all its positions: squares are summed before they are divided
    gaps = positions(predicted - teacher_features.detach())
    squares = torch.linalg.vecdot(gaps, gaps, dim=1)
    return 0.5 * (squares / (gaps.shape[1] * variance) + variance.log()).mean(1)


class _Regressor(nn.Module):
    """Predicts the teacher's map from the student's, with a variance of its own for each channel."""

    def __init__(self, student_channels: int, teacher_channels: int, variance: float):
        super().__init__()
        width = teacher_channels
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, teacher_channels, 1),
        )
        # softplus of this is the variance that was asked for
        self.raw_variance = nn.Parameter(torch.full((width,), math.log(math.expm1(variance - LEAST_VARIANCE))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = to_common_size(student, teacher)
        return gaussian_nll(self.mean(student), teacher, F.softplus(self.raw_variance) + LEAST_VARIANCE)


class VID(Term):
    """Gaussian negative log-likelihood of the teacher's maps, summed over pairs of maps.

    The means are small convolutional networks on the student's maps, the variances one number for each
    channel; both are trained with the student.

    Args:
        roles: Maps to compare: a list names the same roles on both sides, a mapping goes from the student's
            role to the teacher's.
        initial_variance: Where the variances begin.
    """

    tasks = None

    def __init__(self, roles: Sequence[str] | Mapping[str, str], initial_variance: Positive):
        super().__init__()
        self.pairs = pair_roles(roles, "VID")
        if initial_variance <= LEAST_VARIANCE:
            raise ValueError(f"VID's initial variance must be above {LEAST_VARIANCE}, got {initial_variance}")
        self.initial_variance = initial_variance
        self.regressors = nn.ModuleList()

    def student_roles(self) -> tuple[str, ...]:
        return tuple(mine for mine, _ in self.pairs)

    def teacher_roles(self) -> tuple[str, ...]:
        return tuple(theirs for _, theirs in self.pairs)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = require_teacher(teacher, "VID")
        channels = [
            (
                require_map(student.feature(mine, "student"), mine, "student", "VID")[0],
                require_map(teacher.feature(theirs, "teacher"), theirs, "teacher", "VID")[0],
            )
            for mine, theirs in self.pairs
        ]
        self.regressors = nn.ModuleList(_Regressor(*both, self.initial_variance) for both in channels)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        rows = [
            regressor(student.feature(mine), teacher.feature(theirs))
            for regressor, (mine, theirs) in zip(self.regressors, self.pairs, strict=True)
        ]
        return torch.stack(rows).sum(0)
