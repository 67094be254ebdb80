"""Relational knowledge distillation: distances between samples, and the angles that they form."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired

ELEMENTS_AT_ONCE = 2**24
"""Largest intermediate tensor of the angles before they are computed in pieces."""


def distances(features: Tensor) -> Tensor:
    """Euclidean distances within a batch divided by their mean: [B, ...] to [B, B].

    The mean is over positive distances. Where there is none (a batch of one), the result is zero.

    Example:
        >>> distances(torch.tensor([[0.0], [1.0], [3.0]]))
        tensor([[0.0000, 0.5000, 1.5000],
                [0.5000, 0.0000, 1.0000],
                [1.5000, 1.0000, 0.0000]])
    """
    flat = features.flatten(1)
    # the matrix-product form cancels: distances of near neighbours would be rounding noise
    raw = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    total, count = raw.sum(), (raw > 0).sum()
    mean = total / count.clamp(min=1)
    return raw / torch.where(mean > 0, mean, 1.0)


@full_precision
def distance_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """RKD-D: Huber difference of the relative distances from each sample, averaged over the batch's samples.

    The mean over the batch is the mean over all B^2 ordered pairs, as in the authors' code, including a sample's
    distance 0 to itself: the published weights belong to it.

    Args:
        student_features: [B, ...].
        teacher_features: [B, ...]; gets no gradient.

    Returns:
        [B].

    References:
        Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019. https://arxiv.org/abs/1904.05068

    Example:
        >>> x = torch.randn(4, 3)
        >>> distance_loss(5 * x + 1, x).abs().max() < 1e-10  # similar figures
        tensor(True)
    """
    with torch.no_grad():
        theirs = distances(teacher_features)
    return F.smooth_l1_loss(distances(student_features), theirs, reduction="none").mean(1)


def _cosines(flat: Tensor, vertices: Tensor) -> Tensor:
    """Cosine of the angle at each vertex between each two samples: [B, D] and [V, D] to [V, B, B]."""
    rays = unit(flat[None] - vertices[:, None], 2)
    return rays @ rays.transpose(1, 2)


def _angle_rows(mine: Tensor, theirs: Tensor, start: int, stop: int) -> Tensor:
    with torch.no_grad():
        expected = _cosines(theirs, theirs[start:stop])
    return F.smooth_l1_loss(_cosines(mine, mine[start:stop]), expected, reduction="none").mean((1, 2))


@full_precision
def angle_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """RKD-A: Huber difference of the cosines of all angles at each sample, averaged over pairs of others.

    The mean over the batch is the mean over all B^3 ordered triples, as in the authors' code. Large batches are
    computed in pieces that the backward pass recomputes, which bounds the memory.

    Args:
        student_features: [B, ...].
        teacher_features: [B, ...]; gets no gradient.

    Returns:
        [B].

    References:
        Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019. https://arxiv.org/abs/1904.05068

    Example:
        >>> x = torch.randn(4, 3)
        >>> angle_loss(5 * x + 1, x).abs().max() < 1e-8  # similar figures
        tensor(True)
    """
    mine, theirs = student_features.flatten(1), teacher_features.detach().flatten(1)
    size = len(mine)
    piece = max(1, ELEMENTS_AT_ONCE // (size * max(size, mine.shape[1], theirs.shape[1])))
    if piece >= size:
        return _angle_rows(mine, theirs, 0, size)
    rows = [
        checkpoint(_angle_rows, mine, theirs, start, min(start + piece, size), use_reentrant=False)
        for start in range(0, size, piece)
    ]
    return torch.cat(rows)  # pyright: ignore[reportArgumentType]


class RKDDistance(Paired):
    """Difference of the relative distances between the samples of a batch. Features are flattened.

    Args:
        student_role: The student's feature, usually the pooled one.
        teacher_role: The teacher's feature; its width may differ.
    """

    tasks = None
    divisible = False
    called = "RKD"

    def __init__(self, student_role: str, teacher_role: str):
        super().__init__({student_role: teacher_role})

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.shapes(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return distance_loss(mine, theirs)


class RKDAngle(RKDDistance):
    """Difference of the angles that the samples of a batch form. Arguments as in `RKDDistance`."""

    tasks = None

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return angle_loss(mine, theirs)
