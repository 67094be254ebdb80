"""The ResNet-18, -34 and -50 of the CIFAR literature: ImageNet's four stages after a 3x3 stem without pooling."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import PositiveInt
from kdx.models.base import Net, stages_after
from kdx.models.cifar.blocks import Stage, initialise, pool


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut; returns the sum before its ReLU."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        y += self.shortcut(x)
        return y


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided) and 1x1 convolutions and a shortcut; returns the sum before its ReLU."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)
        return y


class ResNetLarge(Net):
    """Four stages at full, half, quarter and eighth resolution.

    Features: `stage0` ... `stage4`, `stage1.preact` ... `stage4.preact`, `final` (= `stage4`), `pooled`.
    Initialisation: convolutions He normal over fan_out, batch norms 1 and 0, the classifier torch's own.

    Args:
        block: `basic` (ResNet-18, -34) or `bottleneck` (ResNet-50).
        blocks: Number of blocks of each of the four stages.
        widths: Inner channels of each stage; a bottleneck outputs four times as many. The stem has `widths[0]`.
        num_classes: Number of classes, C.
        in_channels: Channels of the input; any height and width.

    Raises:
        ValueError: The number of stages or widths is not four.

    References:
        Kaiming He et al., "Deep Residual Learning for Image Recognition", 2016, https://arxiv.org/abs/1512.03385
        Yonglong Tian et al., "Contrastive Representation Distillation", 2020, https://arxiv.org/abs/1910.10699
    """

    def __init__(
        self,
        block: Literal["basic", "bottleneck"],
        blocks: Sequence[int],
        widths: Sequence[int],
        num_classes: PositiveInt,
        in_channels: PositiveInt,
    ):
        super().__init__()
        if len(blocks) != 4 or len(widths) != 4:
            raise ValueError(f"this ResNet has 4 stages, but got {len(blocks)} block counts and {len(widths)} widths")
        if block not in ("basic", "bottleneck"):
            raise ValueError(f"block must be basic or bottleneck, not '{block}'")
        kind = Basic if block == "basic" else Bottleneck
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs, stages = widths[0], []
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = []
            for j in range(count):
                stage.append(kind(inputs, width, stride=2 if i > 0 and j == 0 else 1))
                inputs = width * kind.expansion
            stages.append(Stage(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(inputs, num_classes)
        initialise(self, linear="default")

    @property
    def head(self) -> nn.Linear:
        return self.linear

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        last = "bn2" if isinstance(self.layer1[0], Basic) else "bn3"
        return self._norms({f"stage{i}.preact": f"layer{i}.{len(s) - 1}.{last}" for i, s in enumerate(stages, 1)})

    def forward(self, x: Tensor) -> Outputs:
        return self.resume("stage0", F.relu(self.bn1(self.conv1(x)), inplace=True))

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, stage in stages_after(role, (self.layer1, self.layer2, self.layer3, self.layer4), first=0):
            x, features[f"stage{i}.preact"] = stage(x)
            features[f"stage{i}"] = x
        features["final"] = x
        features["pooled"] = pooled = pool(x)
        return Outputs(self.linear(pooled), features)
