"""Generators: networks from random vectors to images."""

from collections.abc import Sequence

from torch import Tensor, nn

from kdx.core.ranges import PositiveInt


class ConvGenerator(nn.Module):
    """Generator of normalised images: a linear layer, then twice an upsampling by 2 and a 3 x 3 convolution.

    The last layer is a batch norm without parameters, so that each channel of a batch has mean 0 and standard
    deviation 1, as normalised data have.

    Args:
        latent: Size of the random vectors.
        widths: Channels before and after the second upsampling.
        input_shape: (C, H, W) of the images.

    Raises:
        ValueError: Height or width is not a multiple of 4, or the number of widths is not two.

    References:
        Chen et al., "Data-Free Learning of Student Networks", 2019. https://arxiv.org/abs/1904.01186
    """

    def __init__(self, latent: PositiveInt, widths: Sequence[PositiveInt], input_shape: Sequence[int]):
        super().__init__()
        channels, height, width = input_shape
        if height % 4 or width % 4 or len(widths) != 2:
            raise ValueError(
                f"ConvGenerator needs two widths and images whose sides are multiples of 4, "
                f"but got widths {list(widths)} and images of {height} x {width}"
            )
        self.latent = latent
        first, second = widths
        self.start = (first, height // 4, width // 4)
        self.linear = nn.Linear(latent, first * (height // 4) * (width // 4), bias=False)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(first),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(first, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first, eps=0.8),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(first, second, 3, padding=1, bias=False),
            nn.BatchNorm2d(second, eps=0.8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(second, channels, 3, padding=1),
            nn.Tanh(),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map vectors [B, latent] to images [B, C, H, W]."""
        return self.layers(self.linear(z).unflatten(1, self.start))
