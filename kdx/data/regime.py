"""Which examples a run may learn from: fractions and subsets that depend on their own seed alone."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.seed import generator
from kdx.data.sets import DataError


def class_ranks(labels: Tensor, seed: int, purpose: str) -> Tensor:
    """A random place of each example within its class, counted from 0, int64 [N].

    Taking the examples whose rank is below a number that grows with the fraction gives nested,
    balanced subsets.
    """
    order = torch.randperm(len(labels), generator=generator(seed, purpose))
    order = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    return ranks


def stratified(labels: Tensor, fraction: float, seed: int, purpose: str) -> Tensor:
    """Mask of a class-balanced share, bool [N].

    The share has `fraction` of all examples, rounded, and of each class as many to within one. For one
    seed and purpose the share of a smaller fraction lies within that of a larger one.

    Raises:
        DataError: Some class would be left without an example.
    """
    counts = labels.bincount()
    # each class is spread evenly over [0, 1), so that any prefix of the whole takes equal shares; the
    # label only decides between equals
    place = (class_ranks(labels, seed, purpose).double() + 0.5) / counts[labels] + labels * 1e-12
    chosen = place.argsort(stable=True)[: math.floor(fraction * len(labels) + 0.5 + 1e-9)]
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[chosen] = True
    empty = ((labels[mask].bincount(minlength=len(counts)) == 0) & (counts > 0)).nonzero().flatten()
    if len(empty):
        smallest = int(counts[counts > 0].min())
        raise DataError(
            f"a {purpose} of {fraction} leaves {len(empty)} classes without an example, the first of them class "
            f"{int(empty[0])}; the smallest class has {smallest}, so {1 / smallest:.4g} is surely enough"
        )
    return mask


def special(labels: Tensor, classes: Sequence[int], num_classes: int) -> Tensor:
    """Labels as a specialist has them: the place of each in `classes`, or their number for all others, int64 [N]."""
    places = torch.full((num_classes,), len(classes))
    places[list(classes)] = torch.arange(len(classes))
    return places[labels]


def balanced(labels: Tensor, count: int, seed: int, purpose: str) -> Tensor:
    """Positions of `count` examples with class counts that differ by at most one, ascending, int64.

    Where a class runs out the others fill its place; all examples where `count` exceeds them.
    """
    turn = class_ranks(labels, seed, purpose) * (int(labels.max()) + 1) + labels
    return turn.argsort()[:count].sort().values
