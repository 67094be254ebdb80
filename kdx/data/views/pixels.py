"""From stored bytes to a normalised batch: the inner loop of the loader, one vectorised pass for each step."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor


def windows(source: np.ndarray, rows: np.ndarray, offsets: np.ndarray, pad: int) -> np.ndarray:
    """Cut each image out of itself padded with zeros, at its own offset.

    Args:
        source: [M, H, W, C], uint8 or float32.
        rows: Which images, int [B].
        offsets: Top and left of each window in the padded image, int [B, 2] in 0..2*pad.
        pad: Zeros on each side.

    Returns:
        [B, H, W, C], a copy.
    """
    _, h, w, c = source.shape
    padded = np.zeros((len(rows), h + 2 * pad, (w + 2 * pad) * c), source.dtype)
    padded[:, pad : pad + h, pad * c : (pad + w) * c] = source.reshape(len(source), h, w * c)[rows]
    image, line, byte = padded.strides
    every = as_strided(
        padded,
        (len(rows), 2 * pad + 1, 2 * pad + 1, h, w * c),
        (image, line, c * byte, line, byte),
        writeable=False,
    )
    return every[np.arange(len(rows)), offsets[:, 0], offsets[:, 1]].reshape(len(rows), h, w, c)


def mirror(images: np.ndarray, which: np.ndarray) -> None:
    """Flip some images left to right, in place: [B, H, W, C] and bool [B]."""
    rows = which.nonzero()[0]
    some = images[rows]
    flipped = np.empty_like(some)
    # channel by channel: a reversed copy of whole pixels runs three bytes at a time and takes several times as long
    for c in range(images.shape[3]):
        flipped[..., c] = some[:, :, ::-1, c]
    images[rows] = flipped


class Normalize:
    """`(x / scale - mean) / std`, in this order, which makes the bits equal to torchvision's.

    Args:
        shape: (C, H, W) of the images.
        scale: The pixel value that maps to 1.0.
        mean: One number for each channel.
        std: One number for each channel.
    """

    def __init__(self, shape: tuple[int, int, int], scale: int, mean: Sequence[float], std: Sequence[float]):
        _, h, w = shape
        self.scale = scale
        # one value for each byte of an image: broadcasting over three channels would run in loops of three
        self.mean, self.std = (torch.tensor(tuple(v), dtype=torch.float32).repeat(h * w) for v in (mean, std))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or float32 [B, H, W, C] -> float32 [B, C, H, W] in channels_last order."""
        flat = images.reshape(len(images), -1).to(torch.float32)
        return flat.div_(self.scale).sub_(self.mean).div_(self.std).view(images.shape).permute(0, 3, 1, 2)
