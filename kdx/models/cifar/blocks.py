"""Building blocks shared by several of these networks."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class Stage(nn.Sequential):
    """Blocks that return their pre-activation; the stage applies the ReLU after each block."""

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks.

        Returns:
            The output and its value before the last ReLU, both [B, D, H, W].
        """
        last, x, preact = len(self) - 1, input, input
        for i, block in enumerate(self):
            preact = block(x)
            # in place saves a tensor, except for the pre-activation that is returned
            x = F.relu(preact, inplace=i < last)
        return x, preact


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle: interleave `groups` equal groups of channels; [B, D, H, W] to [B, D, H, W]."""
    b, d, h, w = x.shape
    return x.view(b, groups, d // groups, h, w).transpose(1, 2).reshape(b, d, h, w)


def pool(x: Tensor) -> Tensor:
    """Global average pooling, [B, D, H, W] to [B, D]."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def initialise(net: nn.Module, linear: Literal["default", "zero_bias", "normal"]) -> None:
    """Initialise as the literature does.

    Convolutions: normal with variance 2 / fan_out (He et al. 2015, https://arxiv.org/abs/1502.01852),
    biases 0. Batch norms: 1 and 0.

    Args:
        net: The network, changed in place.
        linear: Linear layers: `default` keeps torch's initialisation, `zero_bias` zeroes the bias, and `normal`
            draws weights from N(0, 0.01^2) and zeroes the bias.
    """
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Linear) and linear != "default":
            nn.init.zeros_(m.bias)
            if linear == "normal":
                nn.init.normal_(m.weight, std=0.01)
