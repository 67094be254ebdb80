"""Views of feature maps that copy nothing in either memory format.

Flattening a map against its memory format copies it, and its gradient comes back in the other format, in which the
preceding batch norm takes ten times as long.
"""

from typing import Any

import torch
from torch import Tensor


def channels_last(maps: Tensor) -> bool:
    """Whether maps [B, C, H, W] lie in memory with the channels last.

    Example:
        >>> maps = torch.zeros(2, 3, 4, 4)
        >>> channels_last(maps), channels_last(maps.to(memory_format=torch.channels_last))
        (False, True)
    """
    return maps.ndim == 4 and maps.is_contiguous(memory_format=torch.channels_last)


def positions(maps: Tensor) -> Tensor:
    """View maps [B, C, H, W] as [B, H * W, C].

    Example:
        >>> maps = torch.randn(2, 3, 4, 4)
        >>> torch.equal(positions(maps)[:, 5], maps[:, :, 1, 1])
        True
    """
    return maps.permute(0, 2, 3, 1).flatten(1, 2) if channels_last(maps) else maps.flatten(2).mT


def examples(features: Tensor) -> Tensor:
    """View features [B, ...] as [B, N], in memory order: for sums and means over an example.

    Example:
        >>> maps = torch.randn(2, 3, 4, 4)
        >>> torch.allclose(examples(maps).mean(1), maps.mean((1, 2, 3)))
        True
    """
    return features.permute(0, 2, 3, 1).flatten(1) if channels_last(features) else features.flatten(1)


def channel_products(matrices: Tensor) -> Tensor:
    """Inner products of the columns, [B, P, C] to [B, C, C]; the gradient takes one matrix product instead of two.

    Example:
        >>> x = torch.randn(2, 5, 3)
        >>> torch.allclose(channel_products(x), x.mT @ x)
        True
    """
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
