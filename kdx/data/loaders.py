"""Batches of an epoch, as a pure function of (data seed, epoch, step), and the loaders of a run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.distributed import rank, world_size
from kdx.core.spec import DataSpec
from kdx.core.tree import Tree
from kdx.data.dataset import Splits
from kdx.data.order import Alternation, Blend, ByLength, GroupedShuffle, Mix, Order, Repeated, Shuffle, Turns
from kdx.data.sets import DataError, ExampleSet, ImageSet
from kdx.data.steps import Steps
from kdx.data.text.masked import MaskedSet
from kdx.data.text.token_set import TokenSet
from kdx.data.views.augment import PLAIN, Augmentation
from kdx.data.views.fit import check_fit
from kdx.data.views.pixels import Normalize
from kdx.data.workers import worker_count


class _Loader:
    def __init__(self, steps: Steps, spec: DataSpec, num_workers: int | None, channels_last: bool):
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._steps, self._num_workers = steps, worker_count(num_workers) if steps.data.decodes else 0
        self._normalize = _normaliser(steps.data, spec, self.memory_format)
        self.batch_size, self.num_examples = steps.batch_size, len(steps.data)

    def _batches(self, epoch: int, start: int, stop: int, stride: int = 1) -> Iterator[tuple[int, Batch]]:
        where = [(epoch, step) for step in range(start, stop, stride)]
        parts = self._steps.read(where, self._num_workers)
        targets = self._steps.data.targets
        for (_, step), (views, index, number, moved) in zip(where, parts, strict=True):
            inputs, *further = map(self._normalize, views)
            own = {name: moved[name] if name in moved else t[index] for name, t in targets.items()}
            batch = Batch(inputs, own, index, tuple(further), number)
            if isinstance(self._steps.data, MaskedSet):
                batch = self._steps.data.hidden(batch, self._steps.seed, epoch)
            yield step, batch


def _normaliser(data: ExampleSet, spec: DataSpec, memory_format: torch.memory_format) -> Callable[[Tree], Tree]:
    if not isinstance(data, ImageSet):
        return lambda stored: stored
    c, h, w = spec.input_shape
    normalize = Normalize((c, h, w), data.scale, spec.mean, spec.std)

    def apply(stored: Tree) -> Tree:
        if isinstance(stored, Mapping):
            return {**stored, "images": apply(stored["images"])}
        assert isinstance(stored, Tensor)
        return normalize(stored).contiguous(memory_format=memory_format)

    return apply


class TrainLoader(_Loader):
    """Shuffled, augmented batches.

    Batches are a function of (data seed, epoch, step): to resume, call `epoch` with the next step.

    Args:
        data: The examples; positions in it are `Batch.index`.
        spec: Facts for normalising.
        augmentation: The augmentation.
        batch_size: Examples in a batch.
        data_seed: Seed of order and augmentation.
        num_workers: Processes that decode files, see `worker_count`; sets in memory use none.
        drop_last: Whether to leave out a short last batch.
        channels_last: Memory format of the inputs.
        mix: Two kinds of examples, mixed in each batch or in batches that alternate; None for one order of all.

    Raises:
        DataError: An epoch has no batch, or the augmentation does not fit the data.
    """

    def __init__(
        self,
        data: ExampleSet,
        spec: DataSpec,
        augmentation: Augmentation,
        batch_size: int,
        data_seed: int,
        num_workers: int | None,
        drop_last: bool,
        channels_last: bool,
        mix: Mix | Alternation | None = None,
    ):
        check_fit(augmentation, data)
        order = _order(data, batch_size, mix, augmentation.repeats)
        super().__init__(Steps(data, augmentation, batch_size, data_seed, order), spec, num_workers, channels_last)
        self.steps_per_epoch = len(order) // batch_size if drop_last else -(-len(order) // batch_size)
        if not self.steps_per_epoch:
            raise DataError(
                f"a batch_size of {batch_size} with drop_last leaves no step: an epoch has {len(order)} examples"
            )
        self.examples_per_epoch = self.steps_per_epoch * batch_size if drop_last else len(order)
        last = 0 if drop_last else len(order) % batch_size
        self.last_batch = last or batch_size
        if self.last_batch < world_size():
            raise DataError(
                f"each of {world_size()} processes needs an example of every batch; the batch_size is {batch_size}, "
                f"and the last batch of an epoch has {self.last_batch} (trainer.drop_last=true leaves it out)"
            )
        self._length, self._mixing = len(order), augmentation.mixing
        self.data, self.spec, self.augmentation, self.order, self.seed = data, spec, augmentation, order, data_seed

    @property
    def divided(self) -> bool:
        """Whether this process reads only its share of a batch."""
        return self._steps.divided

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `start` on, both counted from 0; this process's shares of them."""
        for step, batch in self._batches(epoch, start, self.steps_per_epoch):
            if self._mixing is not None:
                batch = self._mixing.apply(batch, self.spec.num_classes, self.seed, epoch, step)
                batch = batch.share(rank(), world_size())
            elif self.divided:
                batch = replace(batch, whole=min(self.batch_size, self._length - step * self.batch_size))
            yield batch


def _order(data: ExampleSet, batch_size: int, mix: Mix | Alternation | None, repeats: int) -> Order:
    if repeats > 1:
        if mix is not None or data.nearby is not None or not isinstance(data, ImageSet):
            raise DataError(
                "augmentation.repeats needs one shuffled set of images, without a second kind of examples or shards"
            )
        return Repeated(len(data), repeats)
    if mix is not None:
        if data.nearby is not None:
            raise DataError("batches that mix two kinds of examples are drawn from all shards: dataset.at_once=null")
        if isinstance(mix, Alternation):
            return Turns(mix, batch_size)
        return Blend(mix, batch_size, data.lengths if isinstance(data, TokenSet) else None)
    if isinstance(data, TokenSet):
        return ByLength(data.lengths, batch_size)
    return Shuffle(len(data)) if data.nearby is None else GroupedShuffle(data.nearby)


class EvalLoader(_Loader):
    """Batches of all examples in order, without augmentation.

    Args:
        data: The examples.
        spec: Facts for normalising.
        batch_size: Examples in a batch; the last one may be short.
        num_workers: Processes that decode files, see `worker_count`; sets in memory use none.
        channels_last: Memory format of the inputs.
    """

    def __init__(self, data: ExampleSet, spec: DataSpec, batch_size: int, num_workers: int | None, channels_last: bool):
        super().__init__(Steps(data, PLAIN, batch_size, None), spec, num_workers, channels_last)

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.dealt(0, 1)

    def dealt(self, first: int, hands: int) -> Iterator[Batch]:
        """One reader's share of the batches, dealt round-robin: batch `first`, then every `hands`-th."""
        for _, batch in self._batches(0, first, len(self), hands):
            yield batch


class Epochs(Protocol):
    """Source of the batches of each epoch.

    Attributes:
        steps_per_epoch: Number of batches.
        last_batch: Number of examples in the last of them.
    """

    steps_per_epoch: int
    examples_per_epoch: int
    last_batch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Loaders:
    """The loaders of a run.

    Attributes:
        spec: Facts of the training set.
        splits: The examples.
        train: Training batches.
        evals: Batches by split: "test", "val" if there is one, and "train" for a part of the training set.
        num_views: Bound on `Batch.view` of training batches; None if the number of views is infinite.
        view_space: Settings that `Batch.view` depends on beside the source, see `Augmentation.space`.
    """

    spec: DataSpec
    splits: Splits
    train: Epochs
    evals: Mapping[str, EvalLoader]
    num_views: int | None
    view_space: str


def make_loaders(
    splits: Splits,
    augmentation: Augmentation,
    batch_size: int,
    eval_batch_size: int,
    data_seed: int,
    num_workers: int | None,
    drop_last: bool,
    channels_last: bool,
) -> Loaders:
    """Loaders of a run's splits; see `TrainLoader` and `EvalLoader` for the arguments."""
    parts = {"test": splits.test, "val": splits.val, "train": splits.train_subset}
    unlimited = isinstance(splits.train, MaskedSet)
    return Loaders(
        splits.spec,
        splits,
        TrainLoader(
            splits.train,
            splits.spec,
            augmentation,
            batch_size,
            data_seed,
            num_workers,
            drop_last,
            channels_last,
            splits.mix,
        ),
        {
            name: EvalLoader(part, splits.spec, eval_batch_size, num_workers, channels_last)
            for name, part in parts.items()
            if part is not None
        },
        None if unlimited or augmentation.num_views is None else splits.train.pool * augmentation.num_views,
        augmentation.space(data_seed),
    )
