"""VID: a lower bound of the mutual information between student's and teacher's features."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import positions
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Roles
from kdx.losses.features.at import to_common_size

LEAST_VARIANCE = 1e-5
"""Added to every variance, so that a channel that is predicted perfectly cannot make the loss unbounded."""


@full_precision
def gaussian_nll(predicted: Tensor, teacher_features: Tensor, variance: Tensor) -> Tensor:
    """Mean over channels and positions of `(f - mu)^2 / (2 var) + log(var) / 2`; the constant is left out.

    Args:
        predicted: mu, [B, C, H, W].
        teacher_features: f, [B, C, H, W]; gets no gradient.
        variance: One for each channel, [C].

    Returns:
        [B].

    References:
        Ahn, Hu, Damianou, Lawrence, Dai, "Variational Information Distillation for Knowledge Transfer", 2019.
        https://arxiv.org/abs/1904.05835

    Example:
        >>> predicted, target = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
        >>> gaussian_nll(predicted, target, torch.ones(1))
        tensor([0.5000])
    """
    # all positions of a channel share its variance: squares are summed before the division
    gaps = positions(predicted - teacher_features.detach())
    squares = torch.linalg.vecdot(gaps, gaps, dim=1)
    return 0.5 * (squares / (gaps.shape[1] * variance) + variance.log()).mean(1)


class _Regressor(nn.Module):
    """Predicts the teacher's map from the student's, with a learned variance per channel."""

    def __init__(self, student_channels: int, teacher_channels: int, variance: float, bias: bool):
        super().__init__()
        width = teacher_channels
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, width, 1, bias=bias),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=bias),
            nn.ReLU(),
            nn.Conv2d(width, teacher_channels, 1, bias=bias),
        )
        # its softplus plus LEAST_VARIANCE is the initial variance
        self.raw_variance = nn.Parameter(torch.full((width,), math.log(math.expm1(variance - LEAST_VARIANCE))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = to_common_size(student, teacher)
        return gaussian_nll(self.mean(student), teacher, F.softplus(self.raw_variance) + LEAST_VARIANCE)


class VID(Paired):
    """Gaussian negative log-likelihood of the teacher's maps, summed over pairs of maps.

    Small convolutional networks on the student's maps give the means, one learned number per channel the variances.

    Args:
        roles: Maps to compare: a list names the same roles on both sides, a mapping goes from the student's
            role to the teacher's. None for all stages but the stem, as published.
        initial_variance: Where the variances begin.
        bias: Whether the convolutions of the means have biases.
    """

    called = "VID"

    def __init__(self, roles: Roles | None, initial_variance: Positive, bias: bool = True):
        super().__init__(roles)
        if initial_variance <= LEAST_VARIANCE:
            raise ValueError(f"VID's initial variance must be above {LEAST_VARIANCE}, got {initial_variance}")
        self.initial_variance, self.bias = initial_variance, bias
        self.regressors = nn.ModuleList()

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        channels = [(mine[0], theirs[0]) for mine, theirs in self.maps(student, teacher)]
        self.regressors = nn.ModuleList(_Regressor(*both, self.initial_variance, self.bias) for both in channels)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        rows = [
            regressor(*pair) for regressor, pair in zip(self.regressors, self.features(student, teacher), strict=True)
        ]
        return torch.stack(rows).sum(0)
