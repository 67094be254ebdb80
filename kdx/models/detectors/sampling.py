"""Which anchors or regions a detector learns from: matched with objects by overlap, drawn by the example's number."""

from typing import Any

import torch
from torch import Tensor

MASK30, MASK27, MASK31, MASK11 = ((1 << (64 - n)) - 1 for n in (30, 27, 31, 11))


def uniform(keys: Tensor, count: int) -> Tensor:
    """Random numbers in [0, 1) as a function of keys, float64 [B, count]; the same on every device.

    Equal keys give equal numbers, so that a draw depends on neither the batch nor the process (splitmix64).

    Args:
        keys: int64 [B].
        count: Numbers for each key.

    Example:
        >>> a, b = uniform(torch.tensor([3, 4]), 5)
        >>> torch.equal(b, uniform(torch.tensor([4]), 5)[0]), torch.equal(a, b)
        (True, False)
    """
    steps = torch.arange(1, count + 1, device=keys.device)
    x = _mixed(keys * -7046029254386353131)[:, None] + steps * -7046029254386353131
    return ((_mixed(x) >> 11) & MASK11).double() / (1 << 53)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 30) & MASK30)) * -4658895280553007687
    x = (x ^ ((x >> 27) & MASK27)) * -7723592293110705685
    return x ^ ((x >> 31) & MASK31)


def drawn(wanted: Tensor, numbers: Tensor, most: Tensor | int) -> Tensor:
    """At most `most` true elements of each row of a mask [B, N], those with the lowest numbers [B, N]; a mask [B, N].

    Args:
        wanted: The mask.
        numbers: In [0, 1).
        most: For all rows, or for each, [B, 1].

    Example:
        >>> drawn(torch.tensor([[True, False, True, True]]), torch.tensor([[0.3, 0.0, 0.1, 0.2]]), 2)
        tensor([[False, False,  True,  True]])
    """
    order = torch.where(wanted, numbers, 2.0).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return wanted & (rank < most)


def balanced(labels: Tensor, numbers: Tensor, size: int, share: float) -> Tensor:
    """A sample of each row with at most a share of positives; negatives fill the rest; a mask [B, N].

    Args:
        labels: Positive 1, negative 0, ignored -1, [B, N].
        numbers: Random numbers in [0, 1), [B, N].
        size: Size of each sample, at most.
        share: Largest share of positives.
    """
    positive = drawn(labels >= 1, numbers, int(size * share))
    return positive | drawn(labels == 0, numbers, size - positive.sum(1, keepdim=True))


def assigned(
    matcher: Any, boxes: Tensor, objects: Tensor, labels: Tensor, crowd: Tensor, crowd_share: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Match boxes with the objects of their images.

    Args:
        matcher: torchvision's `Matcher`, whose thresholds and rules hold.
        boxes: Anchors [N, 4], the same for all images, or regions of each, [B, N, 4].
        objects: [B, M, 4].
        labels: Class of each object, -1 for padding, [B, M].
        crowd: Whether an object is ignored, [B, M].
        crowd_share: A box without an object that lies in a crowd by more than this share is ignored.

    Returns:
        The object of each box, int64 [B, N] (any where there is none), and 1 for a match, 0 for background, -1 to
        ignore, [B, N].
    """
    boxes = boxes.expand(len(objects), *boxes.shape[-2:])
    real, ignored = (labels >= 0) & ~crowd, (labels >= 0) & crowd
    size = (boxes[..., 2:] - boxes[..., :2]).prod(2)
    inside = _intersection(objects, boxes)
    areas = (objects[..., 2:] - objects[..., :2]).prod(2)
    overlap = torch.where(real[..., None], inside / (areas[..., None] + size[:, None] - inside), -1.0)
    best, found = overlap.max(1)
    kind = torch.where(best >= matcher.high_threshold, 1, torch.where(best < matcher.low_threshold, 0, -1))
    if matcher.allow_low_quality_matches and boxes.shape[1]:  # the best boxes of each object, however low
        top = (overlap == overlap.amax(2, keepdim=True)) & real[..., None]
        kind = torch.where(top.any(1), 1, kind)
    if bool(ignored.any()):
        covered = torch.where(ignored[..., None], inside, 0.0).amax(1)
        kind = torch.where((kind == 0) & (covered > crowd_share * size), -1, kind)
    return found, kind


def _intersection(objects: Tensor, boxes: Tensor) -> Tensor:
    """Area that each object [B, M, 4] and each box [B, N, 4] have in common, [B, M, N]."""
    low = torch.maximum(objects[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(objects[:, :, None, 2:], boxes[:, None, :, 2:])
    return (high - low).clamp(min=0).prod(3)
