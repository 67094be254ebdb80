"""Distances of a composed distiller: rows [B, R, D] of both sides in, a value per example out."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.functional import centred, unit
from kdx.losses.base.numerics import full_precision
from kdx.losses.composed.rules import Distance


@full_precision
def distance(student_rows: Tensor, teacher_rows: Tensor, kind: Distance) -> Tensor:
    """A distance of rows, 0 where they are equal.

    "l1", "mse" and "smooth_l1" are means over all numbers. "euclidean" is the length of the difference of two rows,
    "cosine" and "pearson" are 1 minus the cosine or correlation of two rows, "kl" is the divergence of two rows of
    log-probabilities, all averaged over rows. "pearson_examples" correlates each number over the batch, and
    "pearson_both" is the sum of both correlations.

    Args:
        student_rows: [B, R, D].
        teacher_rows: [B, R, D]; gets no gradient.
        kind: The distance.

    Returns:
        [B].

    Example:
        >>> distance(torch.zeros(1, 1, 4), torch.full((1, 1, 4), 2.0), "euclidean")
        tensor([4.])
    """
    mine, theirs = student_rows, teacher_rows.detach()
    if kind == "pearson_both":
        return distance(mine, theirs, "pearson") + distance(mine, theirs, "pearson_examples")
    if kind == "l1":
        rows = (mine - theirs).abs().mean(2)
    elif kind == "mse":
        rows = (mine - theirs).square().mean(2)
    elif kind == "smooth_l1":
        rows = F.smooth_l1_loss(mine, theirs, reduction="none").mean(2)
    elif kind == "euclidean":
        rows = _length(mine - theirs)
    elif kind == "cosine":
        rows = 1 - _products(unit(mine, 2), unit(theirs, 2), 2)
    elif kind == "pearson":
        rows = 1 - _products(unit(centred(mine, 2), 2), unit(centred(theirs, 2), 2), 2)
    elif kind == "pearson_examples":
        alike = _products(unit(centred(mine, 0), 0), unit(centred(theirs, 0), 0), 0)
        return (1 - alike).mean().expand(len(mine))
    else:
        p = theirs.exp()
        rows = (p * (theirs - mine).masked_fill(p == 0, 0.0)).sum(2)
    return rows.mean(1)


def _products(mine: Tensor, theirs: Tensor, dim: int) -> Tensor:
    return (mine * theirs).sum(dim)


def _length(gaps: Tensor) -> Tensor:
    """Lengths along the last axis; a zero gap has no gradient."""
    squares = gaps.square().sum(2)
    known = squares > 0
    return torch.where(known, torch.where(known, squares, 1.0).sqrt(), 0.0)
