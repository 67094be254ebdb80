"""Views of feature maps that copy nothing, whichever way the maps lie in memory.

A map that is flattened against its memory format is copied, and its gradient comes back in the other format,
where the batch norm behind it takes ten times as long.
"""

from typing import Any

import torch
from torch import Tensor


def channels_last(maps: Tensor) -> bool:
    return maps.ndim == 4 and maps.is_contiguous(memory_format=torch.channels_last)


def positions(maps: Tensor) -> Tensor:
    """Maps [B, C, H, W] as [B, H * W, C]."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2) if channels_last(maps) else maps.flatten(2).mT


def examples(features: Tensor) -> Tensor:
    """Features [B, ...] as [B, N], the N in whatever order they lie: for sums and means over an example."""
    return features.permute(0, 2, 3, 1).flatten(1) if channels_last(features) else features.flatten(1)


def channel_products(matrices: Tensor) -> Tensor:
    """Inner products of the columns, [B, P, C] to [B, C, C], whose gradient is one product instead of two."""
    products = _ChannelProducts.apply(matrices)
    assert isinstance(products, Tensor)
    return products


class _ChannelProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        ctx.save_for_backward(matrices)
        return matrices.mT @ matrices

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (matrices,) = ctx.saved_tensors
        return matrices @ (gradients[0] + gradients[0].mT)
