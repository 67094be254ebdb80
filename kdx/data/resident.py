"""Training images that stay on the device as bytes, with crop, flip and normalisation there.

The random numbers are those of the loader on the CPU, and each pixel is looked up in a table that the CPU's
normalisation made, so batches are equal bit for bit. A step copies nothing from the host and does not wait for the
device; an epoch's order and random numbers are copied once.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.data.loaders import TrainLoader
from kdx.data.sets import TensorSet
from kdx.data.views.augment import Augmentation
from kdx.data.views.crop import PadCrop
from kdx.data.views.pixels import Normalize

MOST_BYTES = 2**32  # of images on the device, padding included


def can_stay(loader: TrainLoader) -> bool:
    """Whether a loader's images can stay on a device: bytes in memory, with no other changes than crop and flip."""
    data, augmentation = loader.data, loader.augmentation
    if type(augmentation) is not Augmentation or loader.divided or not isinstance(data, TensorSet):
        return False
    if augmentation.policy is not None or augmentation.mixing is not None or data.images.dtype != torch.uint8:
        return False
    if data.foreign or len(loader.spec.input_shape) != 3:
        return False
    if not (augmentation.crop is None or isinstance(augmentation.crop, PadCrop)):
        return False
    c, h, w = data.shape
    pad = _pad(augmentation)
    return type(data).rows is TensorSet.rows and len(data) * c * (h + 2 * pad) * (w + 2 * pad) <= MOST_BYTES


def _pad(augmentation: Augmentation) -> int:
    return augmentation.crop.pad if isinstance(augmentation.crop, PadCrop) else 0


class ResidentLoader:
    """The batches of a training loader, made on a device.

    Args:
        loader: The loader; `can_stay` must hold.
        device: Where the images stay.
    """

    def __init__(self, loader: TrainLoader, device: torch.device):
        self.loader, self.device = loader, device
        self.steps_per_epoch, self.last_batch = loader.steps_per_epoch, loader.last_batch
        self.examples_per_epoch = loader.examples_per_epoch
        data = loader.data
        assert isinstance(data, TensorSet)
        pad, (c, h, w) = _pad(loader.augmentation), data.shape
        self._images = torch.zeros(len(data), h + 2 * pad, w + 2 * pad, c, dtype=torch.uint8, device=device)
        self._images[:, pad : pad + h, pad : pad + w] = data.images.to(device)
        self._targets = {name: target.to(device) for name, target in data.targets.items()}
        self._origin = data.origin.to(device)
        self._lines, self._columns = torch.arange(h, device=device), torch.arange(w, device=device)
        self._channels = torch.arange(c, device=device)
        every = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 1, 1, c)
        normalize = Normalize((c, 1, 1), data.scale, loader.spec.mean, loader.spec.std)
        # a device may divide by multiplying with the reciprocal, so the values are the CPU's
        self._values = normalize(every).permute(0, 2, 3, 1).reshape(-1).contiguous().to(device)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch (counted from 0) from step `start` on."""
        loader, data = self.loader, self.loader.data
        order = loader.order.draw(loader.seed, epoch)
        draws = loader.augmentation.draw(data.pool, loader.seed, epoch)
        moved = self._send(order)
        crop = None if draws.crop is None else self._send(draws.crop)
        flip = None if draws.flip is None else self._send(draws.flip)
        for step in range(start, self.steps_per_epoch):
            part = slice(step * loader.batch_size, (step + 1) * loader.batch_size)
            rows = moved[part]
            inputs = self._views(rows, crop, flip).contiguous(memory_format=loader.memory_format)
            # numbers of views index tables on the CPU
            number = loader.augmentation.number(data.origin[order[part]], draws)
            yield Batch(inputs, {name: t[rows] for name, t in self._targets.items()}, rows, (), number)

    def _views(self, rows: Tensor, crop: Tensor | None, flip: Tensor | None) -> Tensor:
        """The views of some examples, float32 [B, C, H, W] in memory of [B, H, W, C]."""
        origin = self._origin[rows]
        columns = self._columns[None].expand(len(rows), -1)
        if flip is not None:
            columns = torch.where(flip[origin][:, None], len(self._columns) - 1 - columns, columns)
        lines = self._lines[None].expand(len(rows), -1)
        if crop is not None:
            top, left = crop[origin].unbind(1)
            lines, columns = lines + top[:, None], columns + left[:, None]
        views = self._images[rows[:, None, None], lines[:, :, None], columns[:, None, :]]
        places = views.to(torch.int64) * len(self._channels) + self._channels
        return self._values[places].permute(0, 3, 1, 2)

    def _send(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)
