"""Correlation congruence: the relations between the samples of a batch."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired


def correlations(features: Tensor, gamma: float, order: int) -> Tensor:
    """Gaussian kernel of the samples' directions, by its Taylor series: [B, ...] to [B, B].

    `exp(-gamma |a - b|^2) = exp(-2 gamma) exp(2 gamma <a, b>)` for vectors of length 1; the series expands the second
    factor to the power `order`.

    Args:
        features: [B, ...].
        gamma: Inverse width of the kernel.
        order: Last power of the series.

    Example:
        >>> x = torch.randn(4, 3)
        >>> exact = (-0.4 * torch.cdist(unit(x, 1), unit(x, 1)).square()).exp()
        >>> torch.allclose(correlations(x, 0.4, 12), exact, atol=1e-5)
        True
    """
    flat = unit(features.flatten(1), 1)
    cosines = flat @ flat.T
    powers = [(2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(1, order + 1)]
    return math.exp(-2 * gamma) * (1 + torch.stack(powers).sum(0))


@full_precision
def correlation_congruence(student_features: Tensor, teacher_features: Tensor, gamma: float, order: int) -> Tensor:
    """Squared difference of the rows of the two correlation matrices, divided by B.

    Args:
        student_features: [B, ...].
        teacher_features: [B, ...]; gets no gradient.
        gamma: Inverse width of the kernel.
        order: Last power of the series.

    Returns:
        [B].

    References:
        Peng, Jin, Liu, Zhou, Wu, Liu, Zhang, Liu, "Correlation Congruence for Knowledge Distillation", 2019.
        https://arxiv.org/abs/1904.01802

    Example:
        >>> x = torch.randn(4, 3)
        >>> correlation_congruence(2 * x, x, 0.4, 2).abs().max() < 1e-10  # scale does not matter
        tensor(True)
    """
    mine, theirs = (correlations(f, gamma, order) for f in (student_features, teacher_features.detach()))
    return (mine - theirs).square().mean(1)


@full_precision
def neighbour_congruence(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """`sum_d |s_i - t_i|_d |s_(i+1) - t_(i+1)|_d` of neighbours in the batch; each of the two gets half.

    The variant of the CRD paper's table, as its first author described it. The mean over the batch is the mean over the
    B - 1 pairs; it is 0 for a batch of one.

    Args:
        student_features: [B, D].
        teacher_features: [B, D]; gets a gradient, since both sides are embedded.

    Returns:
        [B].

    Example:
        >>> student, teacher = torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3, 1)
        >>> neighbour_congruence(student, teacher).mean()  # (1 * 2 + 2 * 3) / 2
        tensor(4.)
    """
    gaps = (student_features - teacher_features).abs()
    pairs = (gaps[:-1] * gaps[1:]).sum(1)
    halves = pairs * (len(gaps) / max(len(gaps) - 1, 1) / 2)
    return F.pad(halves, (0, 1)) + F.pad(halves, (1, 0))


class CC(Paired):
    """Difference of the two correlation matrices of a batch. Any feature works: it is flattened.

    Args:
        student_role: The student's feature, usually the pooled one.
        teacher_role: The teacher's feature; its width may differ.
        gamma: Inverse width of the Gaussian kernel; a number or a schedule.
        order: Last power of the kernel's Taylor series.
    """

    divisible = False
    called = "CC"

    def __init__(self, student_role: str, teacher_role: str, gamma: Positive | Schedule, order: PositiveInt):
        super().__init__({student_role: teacher_role})
        self.gamma, self.order = gamma, order

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.shapes(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return correlation_congruence(mine, theirs, at(self.gamma, progress), self.order)


class NeighbourCC(Paired):
    """Products of the differences of student and teacher at neighbours in the batch, both embedded.

    Args:
        student_role: The student's feature, flattened.
        teacher_role: The teacher's feature, flattened; its width may differ.
        width: Dimensions of the two linear embeddings, which are trained.
    """

    divisible = False
    called = "CC"
    embed_student: nn.Module
    embed_teacher: nn.Module

    def __init__(self, student_role: str, teacher_role: str, width: PositiveInt):
        super().__init__({student_role: teacher_role})
        self.width = width

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        ((mine, theirs),) = self.shapes(student, teacher)
        self.embed_student = nn.Linear(math.prod(mine), self.width)
        self.embed_teacher = nn.Linear(math.prod(theirs), self.width)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return neighbour_congruence(self.embed_student(mine.flatten(1)), self.embed_teacher(theirs.flatten(1)))
