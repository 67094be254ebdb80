"""The ShuffleNet v2 of the CIFAR distillation literature."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import PositiveInt
from kdx.models.base import Net, stages_after
from kdx.models.cifar.blocks import pool, shuffle

_STEM = 24


class BasicUnit(nn.Module):
    """Convolve one half of the channels, keep the other, and shuffle both."""

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the output, and the two halves before the ReLU and the shuffle."""
        kept, y = x.chunk(2, 1)
        y = F.relu(self.bn1(self.conv1(y)), inplace=True)
        preact = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        return shuffle(torch.cat([kept, F.relu(preact)], 1), 2), (kept, preact)


class DownUnit(nn.Module):
    """Two branches that read all channels and halve the resolution; their outputs are shuffled."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 2, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the output, and the two branches' outputs before the ReLU and the shuffle."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = self.bn5(self.conv5(self.bn4(self.conv4(right))))
        return shuffle(torch.cat([F.relu(left), F.relu(right)], 1), 2), (left, right)


class ShuffleNetV2(Net):
    """A 1x1 stem of 24 channels at full resolution, three stages that each halve it, and a 1x1 convolution.

    Features: `stage0` ... `stage3`; `stage1.preact` ... `stage3.preact`, the last unit's halves before
    its ReLU and shuffle, so with another channel order than `stage1` ...; `final`, after the 1x1
    convolution; `pooled`.
    Initialisation: torch's own, as in the literature.

    Args:
        widths: Channels of each of the three stages, and of the last 1x1 convolution.
        blocks: Number of units of each stage after its downsampling unit.
        num_classes: Number of classes, C.
        in_channels: Channels of the input; any height and width.

    Raises:
        ValueError: The number of widths or stages is wrong, or a width is odd.

    References:
        Ningning Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", 2018,
        https://arxiv.org/abs/1807.11164
    """

    def __init__(
        self, widths: Sequence[int], blocks: Sequence[int], num_classes: PositiveInt, in_channels: PositiveInt
    ):
        super().__init__()
        if len(widths) != 4 or len(blocks) != 3:
            raise ValueError(
                f"a ShuffleNet v2 takes 4 widths and 3 block counts, but got {len(widths)} and {len(blocks)}"
            )
        if any(w % 2 for w in widths[:3]):
            raise ValueError(f"the widths of the stages are halved, so they must be even, not {tuple(widths[:3])}")
        self.conv1 = nn.Conv2d(in_channels, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        inputs, stages = _STEM, []
        for width, count in zip(widths[:3], blocks, strict=True):
            stages.append(nn.Sequential(DownUnit(inputs, width), *(BasicUnit(width) for _ in range(count))))
            inputs = width
        self.layer1, self.layer2, self.layer3 = stages
        self.conv2 = nn.Conv2d(inputs, widths[3], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.linear = nn.Linear(widths[3], num_classes)

    @property
    def head(self) -> nn.Linear:
        return self.linear

    def forward(self, x: Tensor) -> Outputs:
        return self.resume("stage0", F.relu(self.bn1(self.conv1(x)), inplace=True))

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, stage in stages_after(role, (self.layer1, self.layer2, self.layer3), first=0):
            halves: tuple[Tensor, ...] = ()
            for unit in stage:
                x, halves = unit(x)
            features[f"stage{i}.preact"], features[f"stage{i}"] = torch.cat(halves, 1), x
        features["final"] = x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        features["pooled"] = pooled = pool(x)
        return Outputs(self.linear(pooled), features)
