"""Sets of token sequences held in memory, padded a batch at a time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kdx.core.batch import UNLABELLED
from kdx.core.spec import Tokens
from kdx.data.sets import DataError, ExampleSet, Targets


class TokenSet(ExampleSet):
    """Token sequences of different lengths; subsets share one array of ids.

    Args:
        ids: Ids of all sequences, one after the other, int32.
        starts: Position of each sequence's first id, int64 [N].
        lengths: Number of ids of each sequence, int64 [N].
        facts: Facts of the inputs.
        targets, origin, pool: See `ExampleSet`.
        types: For pairs of texts, the text that each id belongs to, uint8 as `ids`.
        foreign: See `ExampleSet`.
    """

    decodes = False
    dtype = np.dtype(np.int32)

    def __init__(
        self,
        ids: Tensor,
        starts: Tensor,
        lengths: Tensor,
        facts: Tokens,
        targets: Targets,
        origin: Tensor | None = None,
        pool: int | None = None,
        types: Tensor | None = None,
        foreign: bool = False,
    ):
        super().__init__(targets, origin, pool)
        if len(starts) != len(self):
            raise DataError(f"{len(starts)} texts but {len(self)} targets")
        self.ids, self.starts, self.lengths, self.types, self.facts = ids, starts, lengths, types, facts
        self.shape, self.foreign = facts.shape, foreign

    def subset(self, indices: Tensor) -> "TokenSet":
        targets, origin = self.at(indices)
        starts, lengths = self.starts[indices], self.lengths[indices]
        return TokenSet(
            self.ids, starts, lengths, self.facts, targets, origin, self.pool, self.types, foreign=self.foreign
        )

    def unlabelled(self) -> "TokenSet":
        """The same sequences without labels."""
        labels = torch.full((len(self),), UNLABELLED)
        return TokenSet(self.ids, self.starts, self.lengths, self.facts, labels, types=self.types, foreign=True)

    def padded(self, indices: Tensor) -> dict[str, Tensor]:
        """Inputs of a batch as `Tokens` describes them, padded to its longest sequence."""
        starts, lengths = self.starts[indices], self.lengths[indices]
        steps = torch.arange(int(lengths.max()))
        mask = steps < lengths[:, None]
        places = torch.where(mask, starts[:, None] + steps, 0)
        ids = self.ids[places].long().masked_fill(~mask, self.facts.pad_id)
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if self.types is not None:
            inputs["token_type_ids"] = self.types[places].long().masked_fill(~mask, 0)
        return inputs

    def row(self, index: int) -> np.ndarray:
        """The ids of one sequence, and behind them, for a pair, the types."""
        here = slice(int(self.starts[index]), int(self.starts[index] + self.lengths[index]))
        ids = self.ids[here].numpy()
        return ids if self.types is None else np.concatenate([ids, self.types[here].numpy().astype(np.int32)])


def joined(parts: Sequence[TokenSet]) -> TokenSet:
    """Sets one after the other; all but the first come from outside the training set.

    Raises:
        DataError: They have different tokenizers, or only some are pairs.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.facts.tokenizer != first.facts.tokenizer:
            raise DataError("texts of another source need the data set's tokenizer; set the same for both")
        if (part.types is None) != (first.types is None):
            raise DataError("pairs of texts and single texts cannot be mixed in one training set")
    sizes = torch.tensor([0, *(len(part.ids) for part in parts)]).cumsum(0)
    pools = torch.tensor([0, *(part.pool for part in parts)]).cumsum(0)
    starts = torch.cat([part.starts + by for part, by in zip(parts, sizes, strict=False)])
    origin = torch.cat([part.origin + by for part, by in zip(parts, pools, strict=False)])
    types = None if first.types is None else torch.cat([part.types for part in parts if part.types is not None])
    ids, lengths = torch.cat([part.ids for part in parts]), torch.cat([part.lengths for part in parts])
    labels = torch.cat([part.labels for part in parts])
    return TokenSet(ids, starts, lengths, first.facts, labels, origin, int(pools[-1]), types, foreign=True)


def padding_share(lengths: Tensor, batch_size: int) -> float:
    """Share of padding among the positions of consecutive batches; 0 without examples.

    Args:
        lengths: Length of each sequence in the order of the batches, int64 [N].
        batch_size: Examples in a batch.

    Example:
        >>> padding_share(torch.tensor([2, 4, 3]), 2)
        0.18181818181818182
    """
    positions = sum(int(part.max()) * len(part) for part in lengths.split(batch_size))
    return 1 - int(lengths.sum()) / positions if positions else 0.0
