"""Examples by content: equal inputs have equal digests, in any data set and under any name."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from kdx.core.distributed import is_leader
from kdx.core.notice import say
from kdx.data.sets import DataError, ExampleSet, ImageSet, VectorSet
from kdx.data.text.token_set import TokenSet

CHUNK = 1024  # examples read at a time
UNREADABLE = np.uint64(0)  # stands for an input that cannot be read; no digest has this value


def digests(data: ExampleSet, unreadable: Callable[[int, DataError], None] | None = None) -> np.ndarray:
    """A digest of each input, uint64 [N]: of its pixels as the set stores them, of its numbers, or of its token ids.

    Args:
        data: The examples.
        unreadable: Called with the position of an input that cannot be read, and the error; its digest is
            `UNREADABLE`. None to raise the error.

    Raises:
        DataError: An input cannot be read.
    """
    rows = inputs(data, unreadable)
    return np.fromiter((UNREADABLE if row is None else digest(row) for row in rows), np.uint64, len(data))


def inputs(data: ExampleSet, unreadable: Callable[[int, DataError], None] | None = None) -> Iterator[np.ndarray | None]:
    """Each input as the set stores it, in order; None for one that cannot be read. Arguments as in `digests`."""
    for indices in torch.arange(len(data)).split(CHUNK):
        yield from _inputs(data, indices, unreadable)


def is_known(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask of the digests that occur among others, bool [N]."""
    return np.isin(values, others) & (values != UNREADABLE)


def is_repeated(values: np.ndarray) -> np.ndarray:
    """Mask of the digests that occurred before in the same array, bool [N]."""
    repeated = np.ones(len(values), dtype=bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated & (values != UNREADABLE)


def without_duplicates(train: ExampleSet, test: ExampleSet, name: str) -> ExampleSet:
    """A training set without inputs of the test set and inputs that repeat an earlier one; a line says how many.

    Args:
        train, test: The sets.
        name: Name of the data set, for the line.
    """
    own = digests(train)
    tested, repeated = is_known(own, digests(test)), is_repeated(own)
    if is_leader():
        say(
            f"dataset.drop_duplicates leaves out {tested.sum()} training examples of {name} that are in the test set, "
            f"and {(repeated & ~tested).sum()} that repeat another"
        )
    return train.subset((~torch.from_numpy(tested | repeated)).nonzero().flatten())


def digest(row: np.ndarray) -> np.uint64:
    """The digest of one input."""
    content = hashlib.blake2b(row.tobytes(), digest_size=8)
    content.update(str(row.shape).encode())
    return np.maximum(np.frombuffer(content.digest(), np.uint64)[0], np.uint64(1))


def _inputs(
    data: ExampleSet, indices: torch.Tensor, unreadable: Callable[[int, DataError], None] | None
) -> Iterator[np.ndarray | None]:
    try:
        rows = _rows(data, indices)
    except DataError as error:
        if unreadable is None:
            raise
        if len(indices) == 1:
            unreadable(int(indices), error)
            yield None
            return
        for index in indices.split(1):
            yield from _inputs(data, index, unreadable)
        return
    yield from rows


def _rows(data: ExampleSet, indices: torch.Tensor) -> Iterable[np.ndarray]:
    if isinstance(data, VectorSet):
        return data.vectors[indices].numpy()
    if isinstance(data, TokenSet):
        return [data.row(i) for i in indices.tolist()]
    assert isinstance(data, ImageSet)
    source, rows = data.rows(indices)
    return source[rows]
