"""Finds the axis of channels in a module's output, where no library states it."""

from typing import Any

import torch
from torch import Tensor, nn

from kdx.models.features.layout import Layout, with_grid

LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.Linear, nn.LayerNorm)


def decide(net: nn.Module, module: nn.Module, x: Tensor, found: Tensor, double: torch.Size | None) -> Layout:
    """The layout of a module's output.

    The channels are the axis that stays when height and width of the input are doubled. Where the network does not
    run at that size, the widths of the module's last layer decide, if they fit one axis only.

    Args:
        net: The network.
        module: The module.
        x: The input, [B, C, H, W].
        found: The module's output.
        double: Shape of the output at twice the size; None if unknown.
    """
    if found.dim() not in (3, 4) or x.dim() != 4:
        return Layout("raw" if found.dim() != 2 else "bc")
    stays = [
        i for i in _axes(found) if double is not None and len(double) == found.dim() and double[i] == found.shape[i]
    ]
    if len(stays) != 1:
        width = _last_width(module)
        stays = [i for i in _axes(found) if found.shape[i] == width]
        double = None
    if len(stays) != 1:
        return Layout("raw")
    if found.dim() == 4:
        return Layout("bchw" if stays[0] == 1 else "bhwc")
    layout, axis = (Layout("bcl"), 2) if stays[0] == 1 else (Layout("blc"), 1)
    aspect = x.shape[2] / x.shape[3]
    known = _of_torchvision(net, x)
    if known is not None:
        return Layout(layout.axes, found.shape[axis] - known[0] * known[1], known)
    if double is None or (double[axis] - found.shape[axis]) % 3:
        return layout
    # places quadruple and the tokens in front stay
    prefix = found.shape[axis] - (double[axis] - found.shape[axis]) // 3
    return with_grid(Layout(layout.axes, prefix), found.shape[axis], aspect) if prefix >= 0 else layout


def _axes(found: Tensor) -> tuple[int, int]:
    return (1, found.dim() - 1)


def _last_width(module: nn.Module) -> int:
    """Channels that the last layer of a module puts out; 0 if there is no layer."""
    layers = [m for m in module.modules() if isinstance(m, LAYERS)]
    if not layers:
        return 0
    last: Any = layers[-1]
    for name in ("out_channels", "num_features", "num_channels", "out_features"):
        if hasattr(last, name):
            return getattr(last, name)
    return last.normalized_shape[-1]


def _of_torchvision(net: Any, x: Tensor) -> tuple[int, int] | None:
    """The grid of torchvision's vision transformers, which run at one size only."""
    if not type(net).__module__.startswith("torchvision.") or not hasattr(net, "patch_size"):
        return None
    return (x.shape[2] // net.patch_size, x.shape[3] // net.patch_size) if isinstance(net.patch_size, int) else None
