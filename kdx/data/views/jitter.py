"""Random changes of whole images that leave their class alone: colours, crops and shifts, on values from 0 to 1."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.ranges import Fraction, PositiveInt, Probability
from kdx.data.sets import DataError

GREY = (0.299, 0.587, 0.114)  # of ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue of each image, in this order, each by a random amount.

    As an augmentation's policy it works on bytes; as a measurement's change on values in [0, 1]. The amounts are those
    of torchvision's ColorJitter, whose order is random.

    Attributes:
        brightness: A factor uniform in [1 - x, 1 + x] for this x.
        contrast: Likewise, of the difference to the mean grey value.
        saturation: Likewise, of the difference to the grey image.
        hue: A shift uniform in [-x, x] of a full turn, at most 0.5.
    """

    brightness: Probability
    contrast: Probability
    saturation: Probability
    hue: Probability

    def __post_init__(self) -> None:
        if self.hue > 0.5:
            raise ValueError(f"hue must be at most 0.5, a half turn; got {self.hue:g}")

    def draw(self, pool: int, generator: torch.Generator) -> Tensor:
        """Factors of brightness, contrast and saturation and the shift of the hue, [pool, 4]."""
        reach = torch.tensor([self.brightness, self.contrast, self.saturation, self.hue])
        drawn = (2 * torch.rand(pool, 4, generator=generator) - 1) * reach
        return drawn + torch.tensor([1.0, 1.0, 1.0, 0.0])

    def apply(self, images: Tensor, scale: int, drawn: Tensor) -> Tensor:
        """Change bytes uint8 [B, H, W, 3] by the drawn amounts [B, 4]; returns uint8 [B, H, W, 3]."""
        if images.shape[3] != 3:
            raise DataError(f"ColorJitter changes colour images, and these have {images.shape[3]} channels")
        values = jittered(images.permute(0, 3, 1, 2).float() / scale, drawn)
        return (values * scale).round().to(torch.uint8).permute(0, 2, 3, 1)

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change images [B, 3, H, W] in [0, 1]."""
        if images.shape[1] != 3:
            raise DataError(f"ColorJitter changes colour images, and these have {images.shape[1]} channels")
        return jittered(images, self.draw(len(images), generator).to(images.device))


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """A random square window of a share of each side, enlarged to the image's size bilinearly.

    Attributes:
        scale: Side of the window as a share of the image's.
    """

    scale: Fraction

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change images [B, C, H, W]."""
        _, _, h, w = images.shape
        size = max(1, round(self.scale * h)), max(1, round(self.scale * w))
        top = torch.randint(h - size[0] + 1, (len(images),), generator=generator)
        left = torch.randint(w - size[1] + 1, (len(images),), generator=generator)
        cut = _windows(images, top.to(images.device), left.to(images.device), size)
        return F.interpolate(cut, (h, w), mode="bilinear", align_corners=False)


@dataclass(frozen=True, kw_only=True)
class RandomShift:
    """A shift by up to some pixels in each direction, with black borders.

    Attributes:
        pixels: Largest shift.
    """

    pixels: PositiveInt

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change images [B, C, H, W]."""
        _, _, h, w = images.shape
        top, left = (torch.randint(2 * self.pixels + 1, (len(images),), generator=generator) for _ in range(2))
        padded = F.pad(images, [self.pixels] * 4)
        return _windows(padded, top.to(images.device), left.to(images.device), (h, w))


def jittered(images: Tensor, drawn: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, each followed by a clamp to [0, 1].

    Args:
        images: [B, 3, H, W] in [0, 1].
        drawn: Factors of the first three and the shift of the hue, [B, 4].

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> jittered(red, torch.tensor([[1.0, 1.0, 1.0, 1 / 3]])).flatten().round(decimals=4)
        tensor([0., 1., 0.])
    """
    brightness, contrast, saturation, hue = (part.view(-1, 1, 1, 1) for part in drawn.unbind(1))
    x = (images * brightness).clamp(0, 1)
    mean = grey(x).mean((2, 3), keepdim=True)
    x = (mean + (x - mean) * contrast).clamp(0, 1)
    x = (grey(x) + (x - grey(x)) * saturation).clamp(0, 1)
    return turned(x, hue)


def grey(images: Tensor) -> Tensor:
    """Luminance of images [B, 3, H, W], as [B, 1, H, W]."""
    return (images * images.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue, in the hexagon of HSV; lightness and saturation of HSV stay.

    Args:
        images: [B, 3, H, W] in [0, 1].
        turns: Part of a full turn, [B, 1, 1, 1].
    """
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    span = high - low
    r, g, b = images.split(1, 1)
    safe = torch.where(span > 0, span, 1.0)
    hue = torch.where(high == r, (g - b) / safe, torch.where(high == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    # each channel is a function of the hue's distance to its own corner of the hexagon
    corner = images.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    place = (corner + hue + 6 * turns) % 6
    return high - span * torch.minimum(place, 4 - place).clamp(0, 1)


def _windows(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    h, w = size
    rows = top[:, None] + torch.arange(h, device=images.device)
    columns = left[:, None] + torch.arange(w, device=images.device)
    which = torch.arange(len(images), device=images.device)
    found = images.permute(0, 2, 3, 1)[which[:, None, None], rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2)
