"""The loader's inner loop: crop, flip and normalise stored bytes in vectorised passes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor


def windows(source: np.ndarray, rows: np.ndarray, offsets: np.ndarray, pad: int) -> np.ndarray:
    """Pad each image with zeros and cut a window at its own offset.

    Args:
        source: [M, H, W, C], uint8 or float32.
        rows: Indices of the images, int [B].
        offsets: Top and left of each window in the padded image, int [B, 2] in 0..2*pad.
        pad: Padding on each side.

    Returns:
        A copy, [B, H, W, C].
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
    """Flip the images [B, H, W, C] selected by the mask bool [B] left to right, in place."""
    rows = which.nonzero()[0]
    some = images[rows]
    flipped = np.empty_like(some)
    # per channel: a reversed copy of whole pixels moves three bytes at a time and is several times slower
    for c in range(images.shape[3]):
        flipped[..., c] = some[:, :, ::-1, c]
    images[rows] = flipped


class Normalize:
    """Compute `(x / scale - mean) / std` in this order, so that the result equals torchvision's bit for bit.

    Args:
        shape: (C, H, W) of the images.
        scale: The pixel value that maps to 1.0.
        mean: Mean per channel.
        std: Standard deviation per channel.
    """

    def __init__(self, shape: tuple[int, int, int], scale: int, mean: Sequence[float], std: Sequence[float]):
        _, h, w = shape
        self.scale = scale
        # one value per byte of an image: broadcasting over three channels would run in short loops of three
        self.mean, self.std = (torch.tensor(tuple(v), dtype=torch.float32).repeat(h * w) for v in (mean, std))

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 or float32 [B, H, W, C] to float32 [B, C, H, W] in channels_last format."""
        flat = images.reshape(len(images), -1).to(torch.float32)
        return flat.div_(self.scale).sub_(self.mean).div_(self.std).view(images.shape).permute(0, 3, 1, 2)
