"""In which order an epoch visits the training set, as a pure function of (data seed, epoch)."""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kdx.core.seed import generator
from kdx.data.sets import DataError, Nearby


class Order(Protocol):
    """Positions of an epoch, of which batches are consecutive parts."""

    def __len__(self) -> int: ...

    def draw(self, seed: int, epoch: int) -> Tensor: ...


class Shuffle:
    """Every example once."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Positions, int64 [size]."""
        return torch.randperm(self.size, generator=generator(seed, "order", epoch))


class Together:
    """Every example once, in an order that reads from few groups at a time.

    The groups come in random order, so many at once, and the examples of those in hand are mixed. It is a coarser
    shuffle than `Shuffle`: two examples of far groups never meet in a batch.

    Args:
        nearby: Which examples lie together, and how many groups are in hand.
    """

    def __init__(self, nearby: Nearby):
        self.nearby = nearby

    def __len__(self) -> int:
        return len(self.nearby.group)

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Positions, int64 [len(self)]."""
        g = generator(seed, "order", epoch)
        names, group = self.nearby.group.unique(return_inverse=True)
        hand = (torch.randperm(len(names), generator=g) // self.nearby.at_once)[group]
        mixed = torch.randperm(len(group), generator=g)
        return mixed[hand[mixed].argsort(stable=True)]


class Mix(NamedTuple):
    """How batches are put together of two kinds of examples.

    Attributes:
        drawn: Which examples fill a share of each batch, bool [N]; an epoch is one pass over the others.
        share: The share.
    """

    drawn: Tensor
    share: float


class Blend:
    """A share of each batch from one kind of examples and the rest from the other.

    An epoch is one pass over the others; the drawn ones come round as often as that takes, each once before any comes
    again.

    Args:
        mix: The kinds; of either there is at least one example in a batch, and the share is rounded to whole ones.
        batch_size: Examples in a batch.

    Raises:
        DataError: There are no examples of one kind, or a batch has no room for both.
    """

    def __init__(self, mix: Mix, batch_size: int):
        self.drawn, self.others = (mask.nonzero().flatten() for mask in (mix.drawn, ~mix.drawn))
        share = mix.share
        if not len(self.drawn) or not len(self.others) or batch_size < 2:
            raise DataError(
                f"two kinds of examples are mixed in batches of at least 2, and there are {len(self.drawn)} for a "
                f"share of {share} and {len(self.others)} for the rest; the batch_size is {batch_size}"
            )
        self.batch_size = batch_size
        self.per_batch = min(max(round(share * batch_size), 1), batch_size - 1)
        whole, left = divmod(len(self.others), batch_size - self.per_batch)
        # a short last batch keeps the proportion
        last = max(round(left * self.per_batch / (batch_size - self.per_batch)), 1) if left else 0
        self.needed = whole * self.per_batch + last

    def __len__(self) -> int:
        return len(self.others) + self.needed

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Positions, int64 [len(self)]: in each batch the drawn examples first."""
        g = generator(seed, "order", epoch)
        others = self.others[torch.randperm(len(self.others), generator=g)]
        rounds = math.ceil(self.needed / len(self.drawn))
        turns = [torch.randperm(len(self.drawn), generator=g) for _ in range(rounds)]
        drawn = self.drawn[torch.cat(turns)[: self.needed]]
        pairs = zip(drawn.split(self.per_batch), others.split(self.batch_size - self.per_batch), strict=True)
        return torch.cat([part for pair in pairs for part in pair])
