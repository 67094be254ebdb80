"""Sums and convolutions with a map upsampled to the nearest, without creating the large map."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

WIDTH = 3
"""Side of the kernels; their padding keeps the size."""
BORDER = (0, 0, 1, 1, 1, 1)
"""Padding of 1 for maps with the channels last."""


def enlarged(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Upsample a map to the nearest value.

    Args:
        x: [B, C, h, w].
        size: (H, W).

    Returns:
        [B, C, H, W].

    Example:
        >>> enlarged(torch.tensor([[[[1.0, 2.0]]]]), (1, 4))
        tensor([[[[1., 1., 2., 2.]]]])
    """
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="nearest")


def add_enlarged(base: Tensor, deeper: Tensor, share: Tensor) -> Tensor:
    """`base + up(deeper) * share`.

    Args:
        base: [B, C, H, W].
        deeper: [B, C, h, w].
        share: [B, 1, H, W].

    Returns:
        [B, C, H, W].

    Example:
        >>> base, deeper, share = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2), torch.rand(2, 1, 4, 4)
        >>> torch.allclose(add_enlarged(base, deeper, share), base + enlarged(deeper, (4, 4)) * share)
        True
    """
    if not divides(deeper, base.shape[2:]):
        return torch.addcmul(base, enlarged(deeper, base.shape[2:]), share)
    total = _Add.apply(base, deeper, share)
    assert isinstance(total, Tensor)
    return total


def convolve_enlarged(base: Tensor, deeper: Tensor, share: Tensor, kernel: Tensor) -> Tensor:
    """`base + conv(up(deeper) * share, kernel)`, with the products of the kernel's taps taken at the small size.

    All large cells of a small cell share one vector. Its product with each tap is taken once, and a sum of nine scaled
    vectors per cell remains at the large size.

    Args:
        base: [B, O, H, W].
        deeper: [B, C, h, w], H and W multiples of h and w.
        share: [B, 1, H, W].
        kernel: [O, C, 3, 3], used with padding 1.

    Returns:
        [B, O, H, W].

    Example:
        >>> base, deeper, share = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 2, 2), torch.rand(2, 1, 4, 4)
        >>> kernel = torch.randn(5, 3, 3, 3)
        >>> expected = base + F.conv2d(enlarged(deeper, (4, 4)) * share, kernel, padding=1)
        >>> torch.allclose(convolve_enlarged(base, deeper, share, kernel), expected, atol=1e-4)
        True
    """
    weights = kernel.permute(2, 3, 0, 1).flatten(0, 2)[..., None, None]
    taps = F.conv2d(deeper, weights).permute(0, 2, 3, 1)
    total = _Convolve.apply(base, taps, share)
    assert isinstance(total, Tensor)
    return total


def divides(deeper: Tensor, size: tuple[int, ...]) -> bool:
    """Whether every cell of `deeper` becomes a block of the same size.

    Example:
        >>> divides(torch.zeros(1, 1, 2, 2), (4, 6)), divides(torch.zeros(1, 1, 2, 2), (4, 5))
        (True, False)
    """
    return not any(large % small for large, small in zip(size, deeper.shape[2:], strict=True))


def _times(large: Tensor, small: tuple[int, ...]) -> tuple[int, int]:
    return large.shape[2] // small[0], large.shape[3] // small[1]


def _blocks(maps: Tensor, high: int, wide: int) -> Tensor:
    """[B, C, H, W] as [B, H / high, high, W / wide, wide, C], a view where channels come last."""
    size, channels, height, width = maps.shape
    return maps.permute(0, 2, 3, 1).reshape(size, height // high, high, width // wide, wide, channels)


class _Add(torch.autograd.Function):
    """Adds by broadcasting blocks, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, deeper: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(deeper, share)
        ctx.times = _times(base, deeper.shape[2:])
        total = torch.addcmul(_blocks(base, *ctx.times), _blocks(deeper, 1, 1), _blocks(share, *ctx.times))
        return total.view(len(base), *base.shape[2:], base.shape[1]).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,), (deeper, share) = gradients, ctx.saved_tensors
        for_deeper = F.avg_pool2d(gradient * share, ctx.times, divisor_override=1)
        for_share = (_blocks(gradient, *ctx.times) * _blocks(deeper, 1, 1)).sum(-1).view(share.shape)
        return gradient, for_deeper, for_share


@lru_cache
def _reach(high: int, wide: int, device: torch.device) -> Tensor:
    """Index of the cell that each tap reads for each output of a block's window, [high + 2, wide + 2, 3, 3], flattened.

    The window is the block and a border of 1: all outputs to which the block's cells contribute. The index is high *
    wide where a tap reads beyond the block.
    """
    rows, columns, down, right = torch.meshgrid(
        *(torch.arange(n, device=device) for n in (high + WIDTH - 1, wide + WIDTH - 1, WIDTH, WIDTH)), indexing="ij"
    )
    row, column = rows + down - WIDTH + 1, columns + right - WIDTH + 1
    within = (row >= 0) & (row < high) & (column >= 0) & (column < wide)
    return torch.where(within, row * wide + column, high * wide).flatten()


class _Convolve(torch.autograd.Function):
    """Multiplies a matrix of shares by the taps of each small cell; the windows overlap by their borders."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, taps: Tensor, share: Tensor) -> Tensor:
        (size, channels, height, width), small = base.shape, taps.shape[1:3]
        high, wide = ctx.times = _times(base, small)
        vectors = taps.reshape(-1, WIDTH * WIDTH, channels)
        cells = _blocks(share, high, wide).transpose(2, 3).reshape(len(vectors), high * wide)
        shares = F.pad(cells, (0, 1))[:, _reach(high, wide, share.device)]
        shares = shares.view(len(vectors), -1, WIDTH * WIDTH).to(vectors.dtype)
        windows = (shares @ vectors).view(size, *small, high + 2, wide + 2, channels)
        total = F.pad(base.permute(0, 2, 3, 1), BORDER)
        for i in range(high + 2):
            for j in range(wide + 2):
                total[:, i : i + height : high, j : j + width : wide] += windows[:, :, :, i, j]
        ctx.save_for_backward(shares, vectors)
        ctx.shapes = taps.shape, share.shape
        # contiguous, since a batch norm takes five times as long on a slice of a larger map
        return total[:, 1:-1, 1:-1].contiguous().permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,), (shares, vectors) = gradients, ctx.saved_tensors
        (high, wide), (taps, share) = ctx.times, ctx.shapes
        padded = F.pad(gradient.permute(0, 2, 3, 1), BORDER)
        windows = padded.unfold(1, high + 2, high).unfold(2, wide + 2, wide).permute(0, 1, 2, 4, 5, 3)
        windows = windows.reshape(len(vectors), -1, gradient.shape[1]).to(vectors.dtype)
        for_taps = (shares.mT @ windows).view(taps)
        cells = gradient.new_zeros(len(vectors), high * wide + 1)
        cells.index_add_(1, _reach(high, wide, gradient.device), (windows @ vectors.mT).flatten(1).to(cells.dtype))
        blocks = cells[:, :-1].view(*taps[:3], high, wide).transpose(2, 3)
        return gradient, for_taps, blocks.reshape(share)
