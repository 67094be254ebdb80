"""RoIAlign by matrix products: on small maps several times as fast on a CPU as torchvision's kernel."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SMALL = 1024  # cells of a map up to which the products are faster on a CPU


def is_small(levels: Sequence[Tensor]) -> bool:
    """Whether `pyramid_roi_align` is the faster one for these maps, [B, C, H, W]."""
    return all(x.device.type == "cpu" and x.shape[2] * x.shape[3] <= SMALL for x in levels)


def pyramid_roi_align(
    levels: Sequence[Tensor], boxes: Tensor, owner: Tensor, size: tuple[int, int], cells: int, samples: int
) -> Tensor:
    """Maps of regions, [N, C, cells, cells], each from the level of its size, as `torchvision.ops.MultiScaleRoIAlign`.

    Args:
        levels: Maps from fine to coarse, [B, C, H, W].
        boxes, owner, cells, samples: As in `roi_align_small`.
        size: Height and width of the input, in pixels.

    References:
        Lin et al., "Feature Pyramid Networks for Object Detection", 2017, equation 1. https://arxiv.org/abs/1612.03144
    """
    strides = [round(math.log2(size[0] / x.shape[2])) for x in levels]
    side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    level = (4 + (side / 224).log2() + 1e-6).floor().clamp(strides[0], strides[-1]) - strides[0]
    parts = [(level == i).nonzero().flatten() for i in range(len(levels))]
    found = [
        roi_align_small(x, boxes[rows], owner[rows], 2.0**-stride, cells, samples)
        for x, stride, rows in zip(levels, strides, parts, strict=True)
        if len(rows)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        return levels[0].new_zeros(0, levels[0].shape[1], cells, cells)
    return torch.cat(found)[torch.cat(parts).argsort()]


def roi_align_small(maps: Tensor, boxes: Tensor, owner: Tensor, scale: float, cells: int, samples: int) -> Tensor:
    """Maps of regions, [N, C, cells, cells], as `torchvision.ops.roi_align(..., aligned=False)` gives them.

    Bilinear interpolation at a grid of points is a product of one matrix along y and another along x. Boxes get no
    gradient.

    Args:
        maps: [B, C, H, W].
        boxes: x1, y1, x2, y2 in pixels of the input, [N, 4].
        owner: Position of each box's image in the batch, [N].
        scale: Cells of the map for each pixel of the input.
        cells: Cells along a side of a region.
        samples: Points along a side of a cell, whose mean is taken.

    Example:
        >>> from torchvision.ops import roi_align
        >>> maps, boxes = torch.randn(2, 3, 6, 8), torch.tensor([[1.0, 4.0, 30.0, 21.0], [0.0, 0.0, 9.0, 9.0]])
        >>> found = roi_align_small(maps, boxes, torch.tensor([1, 0]), 0.25, 3, 2)
        >>> rows = torch.cat([torch.tensor([[1.0], [0.0]]), boxes], 1)
        >>> torch.allclose(found, roi_align(maps, rows, 3, 0.25, 2), atol=1e-5)
        True
    """
    count, channels, height, width = maps.shape
    along_x = _weights(boxes[:, 0], boxes[:, 2], scale, cells, samples, width).to(maps.dtype)
    along_y = _weights(boxes[:, 1], boxes[:, 3], scale, cells, samples, height).to(maps.dtype)
    place, most = places(owner, count)
    # rows along y first, all regions of an image in one product: [B, M * cells, W * C]
    spread = along_y.new_zeros(count * most, cells, height).index_copy(0, place, along_y)
    rows = torch.bmm(spread.view(count, most * cells, height), maps.permute(0, 2, 3, 1).flatten(2))
    each = rows.view(count * most, cells, width, channels)[place]
    return torch.matmul(along_x[:, None], each).permute(0, 3, 1, 2)


def places(owner: Tensor, count: int) -> tuple[Tensor, int]:
    """Rows of regions in a table with as many rows for each of `count` images, [N], and that number of rows.

    Example:
        >>> places(torch.tensor([1, 0, 1]), 2)
        (tensor([2, 0, 3]), 2)
    """
    mine = owner[None] == torch.arange(count, device=owner.device)[:, None]
    most = max(1, int(mine.sum(1).max())) if len(owner) else 1
    rank = (mine.cumsum(1) - 1).gather(0, owner[None])[0] if len(owner) else owner
    return owner * most + rank, most


def _weights(low: Tensor, high: Tensor, scale: float, cells: int, samples: int, length: int) -> Tensor:
    """Share of each of `length` positions of a map in each cell along one axis, [N, cells, length]."""
    start, side = low * scale, ((high - low) * scale).clamp(min=1)
    steps = (torch.arange(cells * samples, device=low.device, dtype=low.dtype) + 0.5) / (cells * samples)
    points = start[:, None] + side[:, None] * steps
    inside = (points >= -1) & (points <= length)
    gaps = points.clamp(0, length - 1)[..., None] - torch.arange(length, device=low.device)
    tents = (1 - gaps.abs()).clamp(min=0) * inside[..., None]
    return tents.unflatten(1, (cells, samples)).mean(2)
