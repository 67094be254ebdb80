"""The bytes of a step, as a pure function of (epoch, step), read here or in worker processes."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdx.core.distributed import rank, world_size
from kdx.core.tree import Tree
from kdx.data.order import Order, Shuffle
from kdx.data.scenes import SceneSet
from kdx.data.sets import DataError, ExampleSet, ImageSet, VectorSet
from kdx.data.text.masked import MaskedSet
from kdx.data.text.token_set import TokenSet
from kdx.data.views.augment import Augmentation, Draws
from kdx.data.views.boxes import scene_views

# views, each uint8 [B, H, W, C] or other inputs; positions [B]; numbers of the first view [B] or None; moved targets
Bytes = tuple[tuple[Tree, ...], Tensor, Tensor | None, Mapping[str, Tensor]]


class Steps(Dataset):
    """The bytes of a step by (epoch, step); picklable, so that worker processes can hold a copy.

    Workers send whole batches of bytes, a quarter of the size of floats. With several training processes, each reads
    only its share of a batch, unless the augmentation mixes examples of the batch.
    """

    def __init__(
        self,
        data: ExampleSet,
        augmentation: Augmentation,
        batch_size: int,
        seed: int | None,
        order: Order | None = None,
    ):
        self.data, self.augmentation, self.batch_size, self.seed = data, augmentation, batch_size, seed
        self.order = order or Shuffle(len(data))
        self.divided = seed is not None and augmentation.mixing is None and world_size() > 1
        self._epoch: int | None = None
        self._order = torch.arange(len(data))
        self._draws = [Draws(None, None, None)]

    def read(self, where: Sequence[tuple[int, int]], workers: int) -> Iterator[Bytes]:
        """The bytes of steps in order, from `workers` processes; 0 reads them in this one."""
        if not workers:
            yield from map(self.__getitem__, where)
            return
        # an own generator, since DataLoader would draw from the global stream in each epoch
        options = {"batch_size": None, "num_workers": workers, "generator": torch.Generator()}
        for part in DataLoader(_Quiet(self), sampler=where, **options):
            if isinstance(part, DataError):
                raise part
            yield part

    def __getitem__(self, where: tuple[int, int]) -> Bytes:
        epoch, step = where
        if self.seed is not None and epoch != self._epoch:
            self._order = self.order.draw(self.seed, epoch)
            self._draws = self.augmentation.draw_repeats(self.data.pool, self.seed, epoch)
            self._epoch = epoch
        index = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        repeat = (step * self.batch_size + torch.arange(len(index))) % len(self._draws)
        if self.divided:
            index, repeat = (part[rank() :: world_size()] for part in (index, repeat))
        if isinstance(self.data, VectorSet):
            return (self.data.vectors[index],), index, None, {}
        if isinstance(self.data, SceneSet):
            scene = scene_views(self.data, index, self._draws[0], self.augmentation)
            return ({"images": scene.images, "sizes": scene.sizes},), index, None, scene.targets
        if isinstance(self.data, TokenSet):
            return (self.data.padded(index),), index, self._numbers(index), {}
        assert isinstance(self.data, ImageSet)
        views = self.augmentation.repeated_views(self.data, index, repeat, self._draws)
        return views, index, self._numbers(index), {}

    def _numbers(self, index: Tensor) -> Tensor | None:
        """Numbers of views: in the training source alone, not in evaluation sets or examples of other sources.

        Hidden tokens differ between epochs, so texts with them have no numbers either.
        """
        home = self.seed is not None and not self.data.foreign and not isinstance(self.data, MaskedSet)
        return self.augmentation.number(self.data.origin[index], self._draws[0]) if home else None


class _Quiet(Dataset):
    """Returns a DataError as a value, since DataLoader would wrap its message in a worker's traceback."""

    def __init__(self, steps: Steps):
        self.steps = steps

    def __getitem__(self, where: tuple[int, int]) -> Bytes | DataError:
        try:
            return self.steps[where]
        except DataError as error:
            return error
