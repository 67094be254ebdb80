"""Which examples a run may learn from: fractions and subsets that depend on their own seed alone."""

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

    Each class gives `fraction` of its examples, rounded half up. For one seed and purpose the share of a
    smaller fraction lies within that of a larger one.

    Raises:
        DataError: Some class would be left without an example.
    """
    counts = labels.bincount()
    # the nudge keeps 0.3 * 50 = 14.999999999999998 with the 15 that is meant
    quota = (counts * fraction + 0.5 + 1e-9).floor().long()
    empty = ((quota == 0) & (counts > 0)).nonzero().flatten()
    if len(empty):
        smallest = int(counts[counts > 0].min())
        raise DataError(
            f"a {purpose} of {fraction} leaves {len(empty)} classes without an example, the first of them class "
            f"{int(empty[0])}; the smallest class has {smallest}, so at least {0.5 / smallest:.4g} is needed"
        )
    return class_ranks(labels, seed, purpose) < quota[labels]


def balanced(labels: Tensor, count: int, seed: int, purpose: str) -> Tensor:
    """Positions of `count` examples with class counts that differ by at most one, ascending, int64.

    Where a class runs out the others fill its place; all examples where `count` exceeds them.
    """
    turn = class_ranks(labels, seed, purpose) * (int(labels.max()) + 1) + labels
    return turn.argsort()[:count].sort().values
