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

    def in_memory(self) -> "DecodedSet":
        """The same set with all images decoded, resized and cropped now."""
        images, _ = self.rows(torch.arange(len(self)))
        return DecodedSet(torch.from_numpy(images), self, torch.arange(len(self)), {})

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


class DecodedSet(TensorSet):
    """The images of an `EncodedSet`, decoded once.

    Resized and cropped images are held from the start. Random crops of whole images need larger ones: these are decoded
    at their first use and then held, too, so that a crop has the same pixels as without memory.

    Args:
        images: Images after resizing and cropping, uint8 [N, H, W, C].
        files: The encoded images, in the same order.
        numbers: Key of each image in `kept`, int64 [N].
        kept: Whole images by key, shared by all subsets.
    """

    def __init__(self, images: Tensor, files: EncodedSet, numbers: Tensor, kept: dict[int, np.ndarray]):
        super().__init__(images, files.targets, files.scale, files.origin, files.pool)
        self.files, self.numbers, self.kept = files, numbers, kept

    def subset(self, indices: Tensor) -> "DecodedSet":
        images, files = self.images.index_select(0, indices), self.files.subset(indices)
        return DecodedSet(images, files, self.numbers[indices], self.kept).with_targets(**self.at(indices)[0])

    def whole(self, index: int) -> np.ndarray:
        number = int(self.numbers[index])
        if number not in self.kept:
            pixels, held = self.files.whole(index), super().whole(index)
            # an image that already has the input size is held as it is
            self.kept[number] = held if np.array_equal(pixels, held) else pixels
        return self.kept[number]


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [h, w, C] to [height, width, C] with Pillow's antialiased bilinear filter."""
    from PIL import Image

    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    out = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return out if out.ndim == 3 else out[..., None]
