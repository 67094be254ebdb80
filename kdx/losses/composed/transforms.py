"""Transforms of a composed distiller: maps [B, C, H, W] in, rows [B, R, D] out."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.functional import centred, unit
from kdx.losses.base.memory_format import channel_products, examples, positions
from kdx.losses.base.numerics import tempered
from kdx.losses.composed.rules import ALONG_BOTH, ALONG_POSITIONS, Attention, Normalise, Scope

SHARPNESS = 0.5  # temperature of the two attentions
DROPPED = 0.65  # share of the positions that `mask` removes


def drawn_mask(maps: Tensor) -> Tensor:
    """A random mask of positions, [B, 1, H, W]: each one is kept with probability 1 - DROPPED.

    Example:
        >>> drawn_mask(torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    size = len(maps), 1, *maps.shape[2:]
    return (torch.rand(size, device=maps.device) >= DROPPED).to(maps.dtype)


def attended(maps: Tensor, attention: Attention, mask: Tensor | None) -> Tensor:
    """Apply the first slot.

    "spatial" and "channel" scale positions or channels by the root of their share of the attention, a softmax of mean
    absolute values, so that a uniform attention changes nothing. "energy" is the mean square over channels.

    Args:
        maps: [B, C, H, W].
        attention: The option.
        mask: [B, 1, H, W] for "mask"; None keeps all positions.

    Returns:
        [B, C, H, W], for "energy" [B, 1, H, W].

    Example:
        >>> maps = torch.ones(1, 2, 2, 2)
        >>> torch.allclose(attended(maps, "spatial", None), maps)
        True
    """
    if attention == "spatial":
        shares = (maps.abs().mean(1) / SHARPNESS).flatten(1)
        return maps * _root(shares).view(len(maps), 1, *maps.shape[2:])
    if attention == "channel":
        return maps * _root(maps.abs().mean((2, 3)) / SHARPNESS)[:, :, None, None]
    if attention == "energy":
        return maps.square().mean(1, keepdim=True)
    if attention == "mask" and mask is not None:
        return maps * mask
    return maps


def _root(scores: Tensor) -> Tensor:
    """Root of N times the softmax of scores [B, N]; through the logarithm, since the root of 0 has no gradient."""
    return scores.shape[1] ** 0.5 * (scores.log_softmax(1) / 2).exp()


def scoped(maps: Tensor, scope: Scope) -> Tensor:
    """Apply the second slot.

    "poolR" is a max pool of R x R; "patchesS" cuts S x S patches, each the channels of one position; "channels" and
    "examples" are the products of all pairs of channels of an example, or of all pairs of examples.

    Args:
        maps: [B, C, H, W].
        scope: The option.

    Returns:
        [B, C', H', W'].

    Example:
        >>> [tuple(scoped(torch.ones(2, 3, 4, 4), scope).shape) for scope in ("pool2", "patches2", "examples")]
        [(2, 3, 2, 2), (2, 12, 2, 2), (2, 2, 1, 1)]
    """
    if scope.startswith("pool"):
        return F.max_pool2d(maps, int(scope[-1]))
    if scope.startswith("patches"):
        parts = int(scope[-1])
        size, channels, height, width = maps.shape
        cells = maps.reshape(size, channels, parts, height // parts, parts, width // parts)
        return cells.permute(0, 1, 3, 5, 2, 4).reshape(size, -1, parts, parts)
    if scope == "channels":
        flat = positions(maps)
        return (channel_products(flat) / flat.shape[1])[..., None]
    if scope == "examples":
        flat = examples(maps)
        return (flat @ flat.T)[:, :, None, None]
    return maps


def normalised(maps: Tensor, normalise: Normalise, temperature: float | None) -> Tensor:
    """Apply the third slot.

    Args:
        maps: [B, C, H, W].
        normalise: The option; a softmax gives log-probabilities.
        temperature: T of a softmax.

    Returns:
        [B, R, D], where the distance compares rows of D numbers: the channels of a position, the positions of a
        channel, or both.

    Example:
        >>> normalised(torch.tensor([[[[3.0]], [[4.0]]]]), "unit_channels", None)
        tensor([[[0.6000, 0.8000]]])
    """
    flat = positions(maps)
    if normalise == "standardise":
        columns = flat.flatten(0, 1)
        flat = (unit(centred(columns, 0), 0) * len(columns) ** 0.5).view(flat.shape)
    elif normalise == "min_max":
        low, high = flat.amin((1, 2), keepdim=True), flat.amax((1, 2), keepdim=True)
        wide = high > low
        flat = torch.where(wide, (flat - low) / torch.where(wide, high - low, 1.0), 0.0)
    elif normalise == "unit_examples":
        flat = unit(flat, 0)
    rows = flat.mT if normalise in ALONG_POSITIONS else flat
    if normalise in ALONG_BOTH:
        rows = flat.flatten(1)[:, None]
    if normalise.startswith("softmax"):
        assert temperature is not None
        return tempered(rows, temperature).log_softmax(2)
    return unit(rows, 2) if normalise in ("unit", "unit_channels", "unit_positions") else rows
