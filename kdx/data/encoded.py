"""Images in files, decoded when they are read."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kdx.data.sets import DataError, ImageSet, Nearby, Targets, TensorSet
from kdx.data.sources.decode import decode, reason


class Encoded(Protocol):
    """Encoded images by number: files, or parts of an archive."""

    def subset(self, indices: Tensor) -> "Encoded": ...

    def decode(self, index: int, channels: int) -> np.ndarray:
        """uint8 [h, w, channels]. Raises DataError with the image's name if it is missing or damaged."""
        ...


class ImageFiles:
    """Image files.

    Args:
        paths: One file for each example.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths = tuple(paths)

    def subset(self, indices: Tensor) -> "ImageFiles":
        return ImageFiles([self.paths[i] for i in indices.tolist()])

    def decode(self, index: int, channels: int) -> np.ndarray:
        path = self.paths[index]
        try:
            return decode(path, channels)
        except Exception as error:  # decoders of damaged files can raise anything
            raise DataError(f"cannot read the image {path}: {reason(error)}") from error


class EncodedSet(ImageSet):
    """Images that are decoded at each access.

    The short side is resized to `resize` (bilinear), then the centre is cropped. Greyscale becomes RGB for three
    channels, and RGB becomes greyscale for one.

    Args:
        source: The encoded images.
        targets: Class indices, int64 [N], or targets by name.
        shape: (C, H, W) of every image after resizing and cropping; C is 1 or 3.
        resize: Length of the short side before cropping; at least max(H, W).
        origin, pool, nearby: See `ImageSet`.
    """

    decodes = True

    def __init__(
        self,
        source: Encoded,
        targets: Targets,
        shape: tuple[int, int, int],
        resize: int,
        origin: Tensor | None = None,
        pool: int | None = None,
        nearby: Nearby | None = None,
    ):
        super().__init__(targets, 255, origin, pool)
        if shape[0] not in (1, 3):
            raise ValueError(f"image files are read as 1 or 3 channels, but input_shape is {list(shape)}")
        if resize < max(shape[1:]):
            raise ValueError(f"resize must be at least the input size {max(shape[1:])}, got {resize}")
        self.source, self.shape, self.resize, self.nearby = source, shape, resize, nearby

    def subset(self, indices: Tensor) -> "EncodedSet":
        source, (targets, origin) = self.source.subset(indices), self.at(indices)
        nearby = None if self.nearby is None else self.nearby._replace(group=self.nearby.group[indices])
        return EncodedSet(source, targets, self.shape, self.resize, origin, self.pool, nearby)

    def rows(self, indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
        c, h, w = self.shape
        images = np.empty((len(indices), h, w, c), np.uint8)
        for image, index in zip(images, indices.tolist(), strict=True):
            image[:] = self._sized(index)
        return images, np.arange(len(indices))

    def whole(self, index: int) -> np.ndarray:
        return self.source.decode(index, self.shape[0])

    def in_memory(self) -> TensorSet:
        """All images, decoded, resized and cropped, as a set in memory."""
        images, _ = self.rows(torch.arange(len(self)))
        return TensorSet(torch.from_numpy(images), self.targets, self.scale, self.origin, self.pool)

    def _sized(self, index: int) -> np.ndarray:
        pixels = self.whole(index)
        _, height, width = self.shape
        h, w = pixels.shape[:2]
        if min(h, w) != self.resize:
            # the long side is rounded down, as in torchvision.transforms.Resize
            h, w = (self.resize, int(self.resize * w / h)) if h <= w else (int(self.resize * h / w), self.resize)
            pixels = resized(pixels, h, w)
        top, left = round((h - height) / 2), round((w - width) / 2)
        return pixels[top : top + height, left : left + width]


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [h, w, C] to [height, width, C] with Pillow's antialiased bilinear filter."""
    from PIL import Image

    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    out = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return out if out.ndim == 3 else out[..., None]
