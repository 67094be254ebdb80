"""Random crops of images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdx.core.ranges import Count
from kdx.data.encoded import resized
from kdx.data.sets import ImageSet
from kdx.data.views.pixels import windows


class Crop:
    """A random window for each sample."""

    def draw(self, pool: int, generator: torch.Generator) -> Tensor:
        """Draw an epoch's random numbers for each example of the source, [pool, ...]."""
        raise NotImplementedError

    def views(self, data: ImageSet, indices: Tensor, drawn: Tensor) -> np.ndarray:
        """Cut the windows of some examples, uint8 [B, H, W, C], from their drawn numbers."""
        raise NotImplementedError

    @property
    def num_windows(self) -> int | None:
        """Number of different windows of an image; None if unlimited."""
        return None

    def number(self, drawn: Tensor) -> Tensor:
        """Number of the drawn window, int64 [B] below `num_windows`; requires `num_windows` not None."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PadCrop(Crop):
    """Pad with black and cut a random window of the original size: the standard crop for small images.

    Attributes:
        pad: Padding in pixels on each side.
    """

    pad: Count

    def draw(self, pool: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2 * self.pad + 1, (pool, 2), generator=generator)

    def views(self, data: ImageSet, indices: Tensor, drawn: Tensor) -> np.ndarray:
        source, rows = data.rows(indices)
        return windows(source, rows, drawn.numpy(), self.pad)

    @property
    def num_windows(self) -> int:
        return (2 * self.pad + 1) ** 2

    def number(self, drawn: Tensor) -> Tensor:
        return drawn[:, 0] * (2 * self.pad + 1) + drawn[:, 1]


@dataclass(frozen=True, kw_only=True)
class ResizedCrop(Crop):
    """Cut a window of random area and aspect ratio and resize it: the standard crop for large images.

    Attributes:
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest aspect ratio, width / height.

    References:
        C. Szegedy et al. Going Deeper with Convolutions. CVPR 2015. https://arxiv.org/abs/1409.4842
    """

    scale: Sequence[float]
    ratio: Sequence[float]

    def __post_init__(self) -> None:
        for name, pair in (("scale", self.scale), ("ratio", self.ratio)):
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise ValueError(f"{name} must be two positive numbers in ascending order, got {list(pair)}")

    def draw(self, pool: int, generator: torch.Generator) -> Tensor:
        # a seed per example, since the number of draws depends on the image's size
        return torch.randint(2**62, (pool,), generator=generator)

    def views(self, data: ImageSet, indices: Tensor, drawn: Tensor) -> np.ndarray:
        c, height, width = data.shape
        out = np.empty((len(indices), height, width, c), np.uint8)
        for view, index, seed in zip(out, indices.tolist(), drawn.tolist(), strict=True):
            pixels = data.whole(index)
            top, left, h, w = self.window(pixels.shape[0], pixels.shape[1], seed)
            view[:] = resized(pixels[top : top + h, left : left + w], height, width)
        return out

    def window(self, height: int, width: int, seed: int) -> tuple[int, int, int, int]:
        """Draw top, left, height and width of a window in an image of the given size."""
        drawn = torch.rand(10, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
        low, high = (math.log(r) for r in self.ratio)
        for area, aspect, y, x in drawn:
            area = height * width * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
            aspect = math.exp(low + aspect * (high - low))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
        # after ten failed draws: the largest central window with an allowed aspect ratio
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
        return (height - h) // 2, (width - w) // 2, h, w
