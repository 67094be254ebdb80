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


def drawn(wanted: Tensor, numbers: Tensor, most: int) -> Tensor:
    """Positions of at most `most` true elements of a mask [N], those with the lowest numbers [N], ascending.

    Example:
        >>> drawn(torch.tensor([True, False, True, True]), torch.tensor([0.3, 0.0, 0.1, 0.2]), 2)
        tensor([2, 3])
    """
    places = wanted.nonzero().flatten()
    if len(places) > most:
        places = places[numbers[places].argsort(stable=True)[:most]]
    return places.sort().values


def balanced(labels: Tensor, numbers: Tensor, size: int, share: float) -> Tensor:
    """Positions of a sample with at most a share of positives, ascending; negatives fill the rest.

    Args:
        labels: Positive 1, negative 0, ignored -1, [N].
        numbers: Random numbers [N].
        size: Size of the sample, at most.
        share: Largest share of positives.
    """
    positive = drawn(labels >= 1, numbers, int(size * share))
    negative = drawn(labels == 0, numbers, size - len(positive))
    return torch.cat([positive, negative]).sort().values


def assigned(
    matcher: Any, boxes: Tensor, objects: Tensor, labels: Tensor, crowd: Tensor, crowd_share: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Match boxes with the objects of an image.

    Args:
        matcher: torchvision's `Matcher`.
        boxes: Anchors or regions, [N, 4].
        objects: [M, 4].
        labels: Class of each object, -1 for padding, [M].
        crowd: Whether an object is ignored, [M].
        crowd_share: A box without an object that lies in a crowd by more than this share is ignored.

    Returns:
        The object of each box, int64 [N] (0 where there is none), and 1 for a match, 0 for background, -1 to ignore.
    """
    from torchvision.ops import box_area, box_iou

    real = ((labels >= 0) & ~crowd).nonzero().flatten()
    if not len(real):
        found, kind = labels.new_zeros(len(boxes)), labels.new_zeros(len(boxes))
    else:
        match = matcher(box_iou(objects[real], boxes))
        found = real[match.clamp(min=0)]
        kind = torch.where(match >= 0, 1, torch.where(match == matcher.BELOW_LOW_THRESHOLD, 0, -1))
    ignored = ((labels >= 0) & crowd).nonzero().flatten()
    if len(ignored) and len(boxes):
        low = torch.maximum(boxes[:, None, :2], objects[ignored][None, :, :2])
        high = torch.minimum(boxes[:, None, 2:], objects[ignored][None, :, 2:])
        inside = (high - low).clamp(min=0).prod(2).amax(1)
        kind = torch.where((kind == 0) & (inside > crowd_share * box_area(boxes)), -1, kind)
    return found, kind
