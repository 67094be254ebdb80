"""The order of the examples in an epoch, a pure function of (data seed, epoch)."""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kdx.core.seed import generator
from kdx.data.sets import DataError, Nearby

POOL = 50
"""Batches that are sorted by length together; more of them leave less padding and mix less."""


class Order(Protocol):
    """Draws the positions of an epoch; batches are consecutive slices of them."""

    def __len__(self) -> int: ...

    def draw(self, seed: int, epoch: int) -> Tensor: ...


class Shuffle:
    """Every example once, uniformly shuffled."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Draw the positions, int64 [size]."""
        return torch.randperm(self.size, generator=generator(seed, "order", epoch))


class GroupedShuffle:
    """Every example once, in an order that reads from few groups at a time.

    The groups are shuffled and taken a few at a time, and the examples of these groups are shuffled together. This is a
    coarser shuffle than `Shuffle`: a batch never mixes examples of groups that are far apart in the order.

    Args:
        nearby: The group of each example, and the number of groups taken at a time.
    """

    def __init__(self, nearby: Nearby):
        self.nearby = nearby

    def __len__(self) -> int:
        return len(self.nearby.group)

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Draw the positions, int64 [len(self)]."""
        g = generator(seed, "order", epoch)
        names, group = self.nearby.group.unique(return_inverse=True)
        hand = (torch.randperm(len(names), generator=g) // self.nearby.at_once)[group]
        mixed = torch.randperm(len(group), generator=g)
        return mixed[hand[mixed].argsort(stable=True)]


class ByLength:
    """Every example once, in batches of similar lengths, so that little of a batch is padding.

    The examples are shuffled and cut into pools of `POOL` batches; each pool is sorted by length and cut into batches,
    and all batches are shuffled. A short last batch holds examples of any length.

    Args:
        lengths: Length of each example, int64 [N].
        batch_size: Examples in a batch.
    """

    def __init__(self, lengths: Tensor, batch_size: int):
        self.lengths, self.batch_size = lengths, batch_size

    def __len__(self) -> int:
        return len(self.lengths)

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Draw the positions, int64 [len(self)]."""
        g = generator(seed, "order", epoch)
        mixed = torch.randperm(len(self), generator=g)
        whole = len(self) // self.batch_size * self.batch_size
        batches = _alike(mixed[:whole], self.lengths, self.batch_size)
        return torch.cat([batches[torch.randperm(len(batches), generator=g)].flatten(), mixed[whole:]])


def _alike(positions: Tensor, lengths: Tensor, batch_size: int) -> Tensor:
    """Positions sorted by length within pools of `POOL` batches, int64 [batches, batch_size]."""
    pool = torch.arange(len(positions)) // (POOL * batch_size)
    order = (pool * (int(lengths.max()) + 1) + lengths[positions]).argsort(stable=True)
    return positions[order].view(-1, batch_size)


class Repeated:
    """Repeated augmentation: a random part of the examples, each several times in a row, in as many batches as usual.

    The repeats of an example have views of their own, see `Augmentation.repeats`.

    Args:
        size: Number of examples, and of positions in an epoch.
        repeats: Positions of an example; the last example of an epoch may have fewer.

    References:
        E. Hoffer et al. Augment Your Batch: Improving Generalization Through Instance Repetition. CVPR 2020.
    """

    def __init__(self, size: int, repeats: int):
        self.size, self.repeats = size, repeats

    def __len__(self) -> int:
        return self.size

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Draw the positions, int64 [size]."""
        shuffled = torch.randperm(self.size, generator=generator(seed, "order", epoch))
        return shuffled.repeat_interleave(self.repeats)[: self.size]


class Mix(NamedTuple):
    """Composition of batches from two kinds of examples.

    Attributes:
        drawn: Mask of the examples that fill a share of each batch, bool [N]; an epoch is one pass over the others.
        share: Share of the batch that they fill.
    """

    drawn: Tensor
    share: float


class Blend:
    """Batches with a fixed share of one kind of examples; the other kind fills the rest.

    An epoch is one pass over the others. The drawn examples are repeated as often as needed, in rounds that contain
    each of them once.

    Args:
        mix: The two kinds and the share. Each batch has at least one example of either kind; the share is rounded to
            whole examples.
        batch_size: Examples in a batch.
        lengths: Length of each example, int64 [N], to batch examples of similar lengths as `ByLength` does; or None.

    Raises:
        DataError: A kind has no examples, or the batch size is below 2.
    """

    def __init__(self, mix: Mix, batch_size: int, lengths: Tensor | None = None):
        self.lengths = lengths
        self.drawn, self.others = (mask.nonzero().flatten() for mask in (mix.drawn, ~mix.drawn))
        share = mix.share
        if not len(self.drawn) or not len(self.others) or batch_size < 2:
            raise DataError(
                f"a batch of two kinds of examples needs trainer.batch_size >= 2 and examples of both kinds, got "
                f"batch_size {batch_size}, {len(self.drawn)} for the share of {share} and {len(self.others)} others"
            )
        self.batch_size = batch_size
        self.per_batch = min(max(round(share * batch_size), 1), batch_size - 1)
        whole, left = divmod(len(self.others), batch_size - self.per_batch)
        # the shorter last batch has the same proportion
        last = max(round(left * self.per_batch / (batch_size - self.per_batch)), 1) if left else 0
        self.needed = whole * self.per_batch + last

    def __len__(self) -> int:
        return len(self.others) + self.needed

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Draw the positions, int64 [len(self)]; each batch starts with its drawn examples."""
        g = generator(seed, "order", epoch)
        others = self.others[torch.randperm(len(self.others), generator=g)]
        rounds = math.ceil(self.needed / len(self.drawn))
        turns = [torch.randperm(len(self.drawn), generator=g) for _ in range(rounds)]
        drawn = self.drawn[torch.cat(turns)[: self.needed]]
        if self.lengths is not None:
            count = len(others) // (self.batch_size - self.per_batch)
            mixed = torch.randperm(count, generator=g)
            drawn, others = (
                torch.cat([_alike(part[: count * size], self.lengths, size)[mixed].flatten(), part[count * size :]])
                for part, size in ((drawn, self.per_batch), (others, self.batch_size - self.per_batch))
            )
        pairs = zip(drawn.split(self.per_batch), others.split(self.batch_size - self.per_batch), strict=True)
        return torch.cat([part for pair in pairs for part in pair])


class Alternation(NamedTuple):
    """Batches of two kinds of examples in turn.

    Attributes:
        second: Mask of the examples of the second kind, bool [N]; an epoch is one pass over the first kind.
        after: Batches of the second kind after each batch of the first.
    """

    second: Tensor
    after: int


class Turns:
    """Whole batches of one kind: one of the first, then some of the second, and so on.

    The first kind's examples that fill no whole batch are left out of an epoch, other ones in each. The second kind is
    repeated as often as needed, in rounds that contain each of them once.

    Args:
        kinds: The two kinds, and the number of batches.
        batch_size: Examples in a batch.

    Raises:
        DataError: A kind has less than a batch of examples.
    """

    def __init__(self, kinds: Alternation, batch_size: int):
        self.second, self.first = (mask.nonzero().flatten() for mask in (kinds.second, ~kinds.second))
        if min(len(self.first), len(self.second)) < batch_size:
            raise DataError(
                f"batches that alternate need trainer.batch_size examples of either kind, got batch_size {batch_size}, "
                f"{len(self.first)} and {len(self.second)} examples"
            )
        self.after, self.batch_size = kinds.after, batch_size
        self.rounds = len(self.first) // batch_size

    def __len__(self) -> int:
        return self.rounds * (1 + self.after) * self.batch_size

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Draw the positions, int64 [len(self)]."""
        g = generator(seed, "order", epoch)
        size = self.batch_size
        first = self.first[torch.randperm(len(self.first), generator=g)][: self.rounds * size].view(self.rounds, size)
        needed = self.rounds * self.after * size
        passes = math.ceil(needed / len(self.second))
        turns = [torch.randperm(len(self.second), generator=g) for _ in range(passes)]
        second = self.second[torch.cat(turns)[:needed]].view(self.rounds, self.after * size)
        return torch.cat([first, second], 1).flatten()
