"""Selects fractions and subsets of a training set; they depend on their own seed alone."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.seed import generator
from kdx.data.sets import DataError, ExampleSet

Within = tuple[Tensor, int]  # positions of examples in a larger set, int64 [N], and its size


def class_ranks(labels: Tensor, seed: int, purpose: str, within: Within | None = None) -> Tensor:
    """A random rank of each example within its class, from 0, int64 [N].

    The examples whose rank is below a bound form balanced subsets, nested for growing bounds.

    Args:
        labels: Class of each example, int64 [N].
        seed: Seed of the order.
        purpose: Name of its random stream.
        within: The larger set whose order the examples follow; None draws an order of these examples.
    """
    positions, size = (torch.arange(len(labels)), len(labels)) if within is None else within
    drawn = torch.randperm(size, generator=generator(seed, purpose))
    place = torch.empty_like(drawn)
    place[drawn] = torch.arange(size)
    order = place[positions].argsort()
    order = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    return ranks


def stratified(labels: Tensor, fraction: float, seed: int, purpose: str, within: Within | None = None) -> Tensor:
    """Mask of a class-balanced share, bool [N].

    The share has `fraction` of all examples, rounded, and the same fraction of each class to within one example. For
    one seed and purpose, a smaller fraction selects a subset of a larger one.

    Args:
        labels, seed, purpose, within: As in `class_ranks`.
        fraction: The share.

    Raises:
        DataError: A class would have no example.
    """
    counts = labels.bincount()
    # each class is spread evenly over [0, 1), so that any prefix takes equal shares of the classes; the label breaks
    # ties
    place = (class_ranks(labels, seed, purpose, within).double() + 0.5) / counts[labels] + labels * 1e-12
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


def held_out(train: ExampleSet, fraction: float, seed: int) -> tuple[ExampleSet, ExampleSet]:
    """A training set without its validation share, and that share, which is class-balanced.

    Raises:
        DataError: A class would have no example in one of the two.
    """
    strata = train.strata
    held = stratified(strata, fraction, seed, "val_fraction")
    if int(strata[~held].unique().numel()) < int(strata.unique().numel()):
        raise DataError(f"a val_fraction of {fraction} leaves a class without a training example")
    return train.subset((~held).nonzero().flatten()), train.subset(held.nonzero().flatten())


def special(labels: Tensor, classes: Sequence[int], num_classes: int) -> Tensor:
    """Labels of a specialist: the position in `classes`, or the length of `classes` for all others, int64 [N]."""
    places = torch.full((num_classes,), len(classes))
    places[list(classes)] = torch.arange(len(classes))
    return places[labels]


def with_noise(labels: Tensor, num_classes: int, share: float, seed: int) -> Tensor:
    """Labels of which a share is replaced by other classes, drawn uniformly, int64 [N].

    For one seed, the examples that a smaller share replaces are among those of a larger one, with the same new labels.
    Unlabelled examples (-1) stay unlabelled.

    Args:
        labels: Class indices, int64 [N].
        num_classes: C, at least 2.
        share: Share of the N examples, rounded to whole examples.
        seed: Seed of the draw.

    Raises:
        DataError: There is one class only.

    Example:
        >>> int((with_noise(torch.arange(10), 10, 0.3, seed=0) != torch.arange(10)).sum())
        3
    """
    if num_classes < 2:
        raise DataError("label_noise needs at least two classes")
    draws = generator(seed, "label_noise")
    order = torch.randperm(len(labels), generator=draws)
    steps = torch.randint(1, num_classes, labels.shape, generator=draws)
    chosen = order[: math.floor(share * len(labels) + 0.5 + 1e-9)]
    chosen = chosen[labels[chosen] >= 0]
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + steps[chosen]) % num_classes
    return noisy


def balanced(labels: Tensor, count: int, seed: int, purpose: str) -> Tensor:
    """Positions of `count` examples with class counts that differ by at most one, ascending, int64.

    If a class has too few examples, the others fill up. All examples if `count` exceeds their number.
    """
    turn = class_ranks(labels, seed, purpose) * (int(labels.max()) + 1) + labels
    return turn.argsort()[:count].sort().values
