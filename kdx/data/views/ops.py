"""Fourteen operations on bytes, for a whole batch with one strength per sample.

Results equal those of torchvision's functions (v2, tensors, nearest interpolation, black fill) for single samples,
except for single pixels at rounding boundaries; the tests state the bounds.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# in the order of torchvision's tables
OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness"),
    *("color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
SIGNED = torch.tensor([1 <= i <= 9 for i in range(len(OPERATIONS))])
AFFINE = tuple(range(1, 6))


@lru_cache(maxsize=8)
def magnitudes(ranges: str, bins: int, height: int, width: int) -> Tensor:
    """Strengths of each operation in its own unit, [14, bins], from weakest to strongest."""
    narrow = ranges == "narrow"
    shear, angle, blend, bits = (0.3, 30.0, 0.9, 4) if narrow else (0.99, 135.0, 0.99, 6)
    shift_x, shift_y = (150 / 331 * width, 150 / 331 * height) if narrow else (32.0, 32.0)
    tops = dict(zip(OPERATIONS[1:10], (shear, shear, shift_x, shift_y, angle, *[blend] * 4), strict=True))
    rows = {name: torch.linspace(0, top, bins) for name, top in tops.items()}
    for name in ("translate_x", "translate_y"):
        rows[name] = rows[name].trunc()
    rows["posterize"] = (8 - torch.arange(bins) / ((bins - 1) / bits)).round()
    rows["solarize"] = torch.linspace(1, 0, bins).double().mul(255)
    return torch.stack([rows.get(name, torch.zeros(bins)).double() for name in OPERATIONS])


def operate(images: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """Apply one operation to each image.

    Args:
        images: uint8 [B, C, H, W], C is 1 or 3.
        op: Index into `OPERATIONS`, int64 [B].
        strength: Signed strength, float64 [B].

    Returns:
        uint8 [B, C, H, W].
    """
    out = images.clone()
    moved = ((op >= AFFINE[0]) & (op <= AFFINE[-1])).nonzero().flatten()
    if len(moved):
        out[moved] = warp(images[moved], inverse_matrices(op[moved], strength[moved], *images.shape[2:]))
    for number, name in enumerate(OPERATIONS):
        rows = (op == number).nonzero().flatten()
        if name in COLORS and len(rows):
            out[rows] = COLORS[name](images[rows], strength[rows].view(-1, 1, 1, 1))
    return out


def inverse_matrices(op: Tensor, strength: Tensor, height: int, width: int) -> Tensor:
    """Affine matrices from output to input pixels, relative to the image's centre: float32 [B, 2, 3]."""
    m = torch.zeros(len(op), 2, 3, dtype=torch.float64)
    m[:, 0, 0] = m[:, 1, 1] = 1
    shear_x, shear_y, translate_x, translate_y, rotate = ((op == i) for i in AFFINE)
    # shears are anchored at the top left corner, as in AutoAugment
    m[shear_x, 0, 1], m[shear_x, 0, 2] = strength[shear_x], strength[shear_x] * height / 2
    m[shear_y, 1, 0], m[shear_y, 1, 2] = strength[shear_y], strength[shear_y] * width / 2
    m[translate_x, 0, 2] = -strength[translate_x]
    m[translate_y, 1, 2] = -strength[translate_y]
    angle = strength[rotate].deg2rad()
    m[rotate, 0, 0] = m[rotate, 1, 1] = angle.cos()
    m[rotate, 0, 1], m[rotate, 1, 0] = -angle.sin(), angle.sin()
    return m.float()


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Warp images uint8 [B, C, H, W] by matrices [B, 2, 3], with nearest neighbours and black borders."""
    _, _, h, w = images.shape
    x = torch.linspace((1 - w) / 2, (w - 1) / 2, w)
    y = torch.linspace((1 - h) / 2, (h - 1) / 2, h)
    # elementwise: the rounding of a matrix product depends on the batch size
    a = (matrices / torch.tensor([w / 2, h / 2]).view(2, 1)).view(-1, 2, 3, 1, 1)
    grid = torch.addcmul(a[:, :, 0] * x, a[:, :, 1], y[:, None]).add_(a[:, :, 2]).permute(0, 2, 3, 1)
    out = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return out.round_().to(torch.uint8)


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images.float()
    r, g, b = images.unbind(1)
    return r.mul(0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114).floor_().unsqueeze(1)


def _blend(images: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    # strength 0 keeps the image, -1 returns `other`
    # one fused operation, as torchvision's scalar form, so that whole-number products truncate alike
    mixed = torch.addcmul(images * (1 + strength).float(), other, (-strength).float())
    return mixed.clamp_(0, 255).to(torch.uint8)


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Adjust brightness: blend with black."""
    return (images * (1 + strength).float()).clamp_(0, 255).to(torch.uint8)


def color(images: Tensor, strength: Tensor) -> Tensor:
    """Adjust saturation: blend with the grey image; a grey image stays unchanged."""
    return images if images.shape[1] == 1 else _blend(images, _gray(images), strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Adjust contrast: blend with the image's mean grey value."""
    return _blend(images, _gray(images).mean((1, 2, 3), keepdim=True), strength)


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Adjust sharpness: blend with a smoothed image; border pixels stay unchanged."""
    channels, h, w = images.shape[1:]
    if h <= 2 or w <= 2:
        return images
    kernel = torch.ones(channels, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    out = images.float()
    smooth = F.conv2d(out, kernel / 13, groups=channels).round_()
    inner = out[..., 1:-1, 1:-1]
    inner += (smooth - inner) * (-strength).float()
    return out.clamp_(0, 255).to(torch.uint8)


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Keep the `strength` most significant bits."""
    dropped = (8 - strength).to(torch.uint8)
    return (images >> dropped) << dropped


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Invert the pixels at or above `strength`."""
    return torch.where(images >= strength.float(), 255 - images, images)


def autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a constant channel stays unchanged."""
    x = images.float()
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = low == high
    low, span = low.masked_fill(flat, 0), ((high - low) * (1 / 255)).masked_fill(flat, 1)
    return ((x - low) / span).clamp_(0, 255).to(torch.uint8)


def equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Equalise each channel's histogram, by Pillow's integer scheme."""
    values = images.flatten(2).long()
    counts = torch.zeros(*images.shape[:2], 256, dtype=torch.long)
    counts.scatter_add_(2, values, torch.ones_like(values))
    total = values.shape[2]
    at_top = counts.gather(2, values.amax(2, keepdim=True))
    step = (total - at_top) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    spread = table.gather(2, values).to(torch.uint8).view_as(images)
    return torch.where((step > 0).unsqueeze(-1), spread, images)


COLORS = {f.__name__: f for f in (brightness, color, contrast, sharpness, posterize, solarize, autocontrast, equalize)}
