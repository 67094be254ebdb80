"""Anchors of a detector: the same number at each position of every level of its pyramid."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def anchor_generator(sizes: Sequence[Sequence[int]], ratios: Sequence[float], levels: int) -> tuple[Any, int]:
    """Generator of the anchors, and their number at each position.

    Args:
        sizes: Sides of the anchors of each level, in pixels.
        ratios: Height over width of the anchors.
        levels: Number of levels.

    Raises:
        ValueError: Levels and lists of sizes differ in number, or lists differ in length.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    if len(sizes) != levels:
        raise ValueError(f"anchor_sizes needs one list for each of {levels} levels, got {len(sizes)}")
    generator = AnchorGenerator(tuple(tuple(s) for s in sizes), (tuple(ratios),) * len(sizes))
    counts = generator.num_anchors_per_location()
    if len(set(counts)) != 1:
        raise ValueError(f"every level needs the same number of anchor_sizes, got {[len(s) for s in sizes]}")
    return generator, counts[0]


def anchors_for(generator: Any, images: Tensor, maps: list[Tensor]) -> Tensor:
    """Anchors [A, 4] in pixels of the images [B, C, H, W], whose maps are those of the levels."""
    from torchvision.models.detection.image_list import ImageList

    found = generator(ImageList(images[:1], [(images.shape[2], images.shape[3])]), maps)
    return found[0].to(images.device)
