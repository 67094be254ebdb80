"""One pass over the data for several runs that take turns."""

from collections.abc import Callable, Iterator

from kdx.core.types import Batch
from kdx.data.loaders import Epochs

Where = tuple[int, int]  # epoch, step


class SharedLoader:
    """A training loader that remembers the batch in hand, so that runs at the same step read it once.

    A run that asks for another step, as after resuming from an older checkpoint, gets that one: batches are a pure
    function of (data seed, epoch, step). Whoever goes furthest behind first reads each batch once.

    Args:
        loader: What makes the batches, on the device of all runs.
        on_batch: Called with each new batch in hand.
    """

    def __init__(self, loader: Epochs, on_batch: Callable[[Batch], None]):
        self.loader, self.on_batch = loader, on_batch
        self.steps_per_epoch = loader.steps_per_epoch
        self._source: Iterator[Batch] = iter(())
        self._next: Where | None = None  # what the source gives next
        self._batch: Batch | None = None
        self._where: Where | None = None
        self._versions: list[int] = []

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, from step `start` on."""
        for step in range(start, self.steps_per_epoch):
            yield self._at((epoch, step))

    def _at(self, where: Where) -> Batch:
        # a run may not change what others will read; where one did, they read the batch anew
        if self._batch is not None and where == self._where and _versions(self._batch) == self._versions:
            return self._batch
        if where != self._next:
            self._source = self.loader.epoch(*where)
        self._batch = batch = next(self._source)
        self._where, self._next, self._versions = where, (where[0], where[1] + 1), _versions(batch)
        self.on_batch(batch)
        return batch


def _versions(batch: Batch) -> list[int]:
    """How often each tensor of a batch was changed in place."""
    return [t._version for t in batch.tensors]
