"""Random views of images with objects, whose boxes move with the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdx.core.ranges import PartialFraction
from kdx.core.seed import generator
from kdx.data.encoded import resized
from kdx.data.scenes import SceneSet
from kdx.data.sets import DataError
from kdx.data.views.augment import PLAIN, Augmentation, Draws

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class BoxAugmentation(Augmentation):
    """Resize by a random factor, cut or pad to the shape, flip, and change colours; boxes follow.

    A view is a pure function of (data seed, epoch, example), as all views are. Crop, policy and mixing must be null.

    Attributes:
        scale: Smallest and largest factor on the fitted size. A larger image is cut to a random window.
        brightness, contrast, saturation: Largest relative change of each.
        min_visible: Share of an object's area that must be inside the window; an object with less is left out.
    """

    scale: Sequence[float]
    brightness: PartialFraction
    contrast: PartialFraction
    saturation: PartialFraction
    min_visible: PartialFraction

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two positive numbers in ascending order, got {list(self.scale)}")
        if self.repeats != 1:
            raise ValueError("repeats must be 1 for images with boxes, whose views are not repeated within an epoch")
        wrong = [key for key in ("crop", "policy", "mixing") if getattr(self, key) is not None]
        if wrong:
            raise ValueError(f"{wrong[0]} must be null for images with boxes, which it would not move")

    @property
    def strengths(self) -> tuple[float, float, float]:
        """Largest relative changes, brightness, contrast, saturation."""
        return self.brightness, self.contrast, self.saturation

    @property
    def resizes(self) -> bool:
        """Whether images change their size."""
        return tuple(self.scale) != (1.0, 1.0)

    @property
    def num_views(self) -> int | None:
        """None: views of scenes are not numbered."""
        return None

    def draw(self, pool: int, seed: int, epoch: int) -> Draws:
        epoch = epoch if self.cycle is None else epoch % self.cycle
        drawn = super().draw(pool, seed, epoch)
        crop = policy = None
        if self.resizes:
            g = generator(seed, "augment", epoch, "scale")
            crop = torch.rand(pool, 3, generator=g, dtype=torch.float64)
        if any(self.strengths):
            g = generator(seed, "augment", epoch, "colour")
            policy = torch.rand(pool, 3, generator=g, dtype=torch.float64)
        return Draws(crop, drawn.flip, policy, turn=epoch)


class Scene(NamedTuple):
    """Views of some examples: images uint8 [B, H, W, C], sizes int64 [B, 2], and the targets that moved."""

    images: Tensor
    sizes: Tensor
    targets: dict[str, Tensor]


def scene_views(data: SceneSet, indices: Tensor, draws: Draws, augmentation: Augmentation) -> Scene:
    """Make the views of some examples, before normalisation.

    Args:
        data: The examples.
        indices: Their positions, int64 [B].
        draws: The epoch's random numbers.
        augmentation: `PLAIN`, or a `BoxAugmentation`.

    Raises:
        DataError: Another augmentation, which would move pixels and not boxes.
    """
    targets = {name: t[indices] for name, t in data.targets.items()}
    if not isinstance(augmentation, BoxAugmentation):
        if augmentation != PLAIN:
            raise DataError("this augmentation moves pixels and not boxes; choose augmentation=boxes or none")
        images, rows = data.rows(indices)
        return Scene(torch.from_numpy(images[rows]), data.sizes[indices], targets)
    origin, count = data.origin[indices], len(indices)
    flip = torch.zeros(count, dtype=torch.bool) if draws.flip is None else draws.flip[origin]
    canvas = data.canvas(count)
    # new size, corner of the window, size of the window
    frames = np.empty((count, 6), dtype=np.int64)
    for i, index in enumerate(indices.tolist()):
        pixels = data.stored(index)
        drawn = None if draws.crop is None else draws.crop[origin[i]].tolist()
        frames[i] = nh, nw, top, left, h, w = _frame(pixels.shape[:2], data.shape[1:], drawn, augmentation.scale)
        if (nh, nw) != pixels.shape[:2]:
            pixels = resized(pixels, nh, nw)
        pixels = pixels[top : top + h, left : left + w]
        canvas[i, :h, :w] = pixels[:, ::-1] if flip[i] else pixels
    frame = torch.from_numpy(frames)
    images = torch.from_numpy(canvas)
    if draws.policy is not None:
        strengths = torch.tensor(augmentation.strengths, dtype=torch.float64)
        images = recoloured(images, *(1 + (2 * draws.policy[origin] - 1) * strengths).unbind(1))
        for image, (h, w) in zip(images, frame[:, 4:].tolist(), strict=True):
            image[h:], image[:, w:] = torch.from_numpy(data.padding), torch.from_numpy(data.padding)
    grown = (frame[:, :2].double() / data.sizes[indices].double()).flip(1)
    targets |= moved(targets, grown, frame[:, 2:4], frame[:, 4:], flip, augmentation.min_visible)
    targets["scales"] = (targets["scales"].double() * grown).float()
    return Scene(images, frame[:, 4:], targets)


def moved(
    targets: dict[str, Tensor], grown: Tensor, corner: Tensor, size: Tensor, flip: Tensor, min_visible: float
) -> dict[str, Tensor]:
    """Boxes and labels after resizing, cutting and flipping.

    Args:
        targets: "boxes" [B, N, 4] and "box_labels" [B, N].
        grown: Factors along x and y, float64 [B, 2].
        corner: Top and left of the window, int64 [B, 2].
        size: Height and width of the window, int64 [B, 2].
        flip: Whether the window is mirrored, bool [B].
        min_visible: See `BoxAugmentation`.

    Returns:
        Both targets; objects that left the window have the label -1 and a box of zeros.

    Example:
        >>> targets = {"boxes": torch.tensor([[[1.0, 0.0, 3.0, 2.0]]]), "box_labels": torch.zeros(1, 1).long()}
        >>> grown, corner, size = torch.ones(1, 2).double(), torch.tensor([[0, 1]]), torch.tensor([[4, 8]])
        >>> moved(targets, grown, corner, size, torch.tensor([True]), 0.5)["boxes"]
        tensor([[[6., 0., 8., 2.]]])
    """
    boxes = targets["boxes"].double() * grown.repeat(1, 2)[:, None]
    whole = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    boxes = boxes - corner.flip(1).repeat(1, 2)[:, None]
    limit = size.flip(1).double().repeat(1, 2)[:, None]
    boxes = torch.minimum(boxes.clamp(min=0), limit)
    width = limit[..., :1]
    mirrored = torch.cat([width - boxes[..., 2:3], boxes[..., 1:2], width - boxes[..., :1], boxes[..., 3:]], -1)
    boxes = torch.where(flip[:, None, None], mirrored, boxes)
    seen = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    kept = (targets["box_labels"] >= 0) & (seen > 0) & (seen >= min_visible * whole)
    return {
        "boxes": torch.where(kept[..., None], boxes, 0.0).float(),
        "box_labels": targets["box_labels"].masked_fill(~kept, -1),
    }


def _frame(
    stored: Sequence[int], shape: Sequence[int], drawn: Sequence[float] | None, scale: Sequence[float]
) -> tuple[int, int, int, int, int, int]:
    """New height and width, top and left of the window in it, height and width of the window."""
    (h, w), (height, width) = stored, shape
    if drawn is None:
        return h, w, 0, 0, h, w
    factor = scale[0] + drawn[0] * (scale[1] - scale[0])
    nh, nw = max(1, round(h * factor)), max(1, round(w * factor))
    wh, ww = min(nh, height), min(nw, width)
    return nh, nw, int(drawn[1] * (nh - wh + 1)), int(drawn[2] * (nw - ww + 1)), wh, ww


def recoloured(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Images with other brightness, contrast and saturation, rounded and cut to bytes once.

    The three changes are one linear map of a pixel, its grey value and the image's mean grey value.

    Args:
        images: uint8 [B, H, W, C], C is 1 or 3.
        brightness, contrast, saturation: Factors, 1 for no change, float64 [B].

    Example:
        >>> half, one = torch.tensor([0.5]).double(), torch.ones(1).double()
        >>> recoloured(torch.full((1, 2, 2, 3), 200, dtype=torch.uint8), half, one, one).unique()
        tensor([100], dtype=torch.uint8)
    """
    x = images.float()
    grey = x @ torch.tensor(LUMA) if images.shape[3] == 3 else x[..., 0]
    mean = grey.mean((1, 2)).double()
    own, of_grey, of_mean = (
        factor.float().view(-1, 1, 1, 1)
        for factor in (
            brightness * contrast * saturation,
            brightness * contrast * (1 - saturation),
            brightness * (1 - contrast) * mean,
        )
    )
    return x.mul_(own).add_(grey[..., None] * of_grey).add_(of_mean).round_().clamp_(0, 255).to(torch.uint8)
