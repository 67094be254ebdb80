"""A training loader shared by several runs that train in turns."""

from collections.abc import Callable, Iterator

from kdx.core.batch import Batch
from kdx.data.loaders import Epochs

Where = tuple[int, int]  # epoch, step
Making = Callable[[Callable[[], Batch]], Batch]


def at_once(read: Callable[[], Batch]) -> Batch:
    return read()


class SharedLoader:
    """A training loader that caches the current batch, so that runs at the same step read it once.

    A run at another step, such as one resumed from an older checkpoint, gets its own batch: batches are a pure function
    of (data seed, epoch, step). If the run that is furthest behind goes first, each batch is read once.

    Args:
        loader: The underlying loader, on the device of all runs.
        on_batch: Callback for each new current batch.
        make: Calls the function that reads a batch; runs whose work overlaps on a GPU wait for it.
    """

    def __init__(self, loader: Epochs, on_batch: Callable[[Batch], None], make: Making = at_once):
        self.loader, self.on_batch, self.make = loader, on_batch, make
        self.steps_per_epoch, self.last_batch = loader.steps_per_epoch, loader.last_batch
        self.examples_per_epoch = loader.examples_per_epoch
        self._source: Iterator[Batch] = iter(())
        self._next: Where | None = None  # position of the source's next batch
        self._batch: Batch | None = None
        self._where: Where | None = None
        self._versions: list[int] = []

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch (counted from 0) from step `start` on."""
        for step in range(start, self.steps_per_epoch):
            yield self._at((epoch, step))

    def _at(self, where: Where) -> Batch:
        # if a run changed the batch in place, the others read it again
        if self._batch is not None and where == self._where and _versions(self._batch) == self._versions:
            return self._batch
        if where != self._next:
            self._source = self.loader.epoch(*where)
        self._batch = batch = self.make(lambda: next(self._source))
        self._where, self._next, self._versions = where, (where[0], where[1] + 1), _versions(batch)
        self.on_batch(batch)
        return batch


def _versions(batch: Batch) -> list[int]:
    """Number of in-place changes of each tensor of a batch."""
    return [t._version for t in batch.tensors]
