"""Images whose shape says one class and whose texture another."""

import torch
from torch import Tensor


def style_swapped(shapes: Tensor, textures: Tensor) -> Tensor:
    """Images with the shapes of some images and the textures of others.

    The phases of a channel's Fourier transform hold where edges are, the amplitudes how much there is of each frequency
    and direction. Each result has the phases of its shape image and the amplitudes of its texture image.

    Args:
        shapes: [B, C, H, W] in [0, 1].
        textures: [B, C, H, W] in [0, 1].

    Returns:
        [B, C, H, W], clamped to [0, 1].

    References:
        Oppenheim, Lim, "The Importance of Phase in Signals", 1981. https://doi.org/10.1109/PROC.1981.12022
        Geirhos et al., "ImageNet-trained CNNs are biased towards texture", 2019 (cue conflicts, there made by style
        transfer). https://arxiv.org/abs/1811.12231

    Example:
        >>> images = torch.rand(2, 3, 8, 8)
        >>> (style_swapped(images, images) - images).abs().max() < 1e-5
        tensor(True)
    """
    shape, texture = torch.fft.rfft2(shapes), torch.fft.rfft2(textures)
    swapped = torch.polar(texture.abs(), shape.angle())
    return torch.fft.irfft2(swapped, s=shapes.shape[2:]).clamp(0, 1)


def conflicts(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A partner of another class for each example, int64 [N].

    Each partner is drawn at random from all examples of other classes.

    Raises:
        ValueError: All examples have one class.

    Example:
        >>> labels = torch.tensor([0, 1, 1, 2])
        >>> bool((labels[conflicts(labels, torch.Generator().manual_seed(0))] != labels).all())
        True
    """
    counts = labels.bincount()
    if int((counts > 0).sum()) < 2:
        raise ValueError("a cue conflict needs examples of at least two classes")
    order = labels.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    own, first = counts[labels], starts[labels]
    # a position among the others, skipping the block of the own class
    place = (torch.rand(len(labels), generator=generator) * (len(labels) - own)).long()
    return order[place + torch.where(place >= first, own, 0)]
