"""The CIFAR ResNets of depth 6n + 2: resnet8 ... resnet110, and the four times wider resnet8x4, resnet32x4."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import PositiveInt
from kdx.models.base import Net, stages_after
from kdx.models.cifar.blocks import Stage, initialise, pool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Returns the sum; the stage applies the ReLU."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        y += x if self.downsample is None else self.downsample(x)
        return y


class ResNet(Net):
    """Three stages of (depth - 2) / 6 basic blocks at full, half and quarter resolution.

    Features: `stage0` ... `stage3`, `stage1.preact` ... `stage3.preact`, `final` (= `stage3`), `pooled`.
    Initialisation: convolutions He normal over fan_out, batch norms 1 and 0, the classifier torch's own.

    Args:
        depth: Number of layers, 6n + 2.
        widths: Channels of the stem and of the three stages.
        num_classes: Number of classes, C.
        in_channels: Channels of the input; any height and width.

    Raises:
        ValueError: The depth is not 6n + 2, or the number of widths is not four.

    References:
        Kaiming He et al., "Deep Residual Learning for Image Recognition", 2016, https://arxiv.org/abs/1512.03385
        Yonglong Tian et al., "Contrastive Representation Distillation", 2020, https://arxiv.org/abs/1910.10699
    """

    def __init__(self, depth: PositiveInt, widths: Sequence[int], num_classes: PositiveInt, in_channels: PositiveInt):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"the depth of a CIFAR ResNet must be 6n + 2 (8, 14, 20, ...), not {depth}")
        if len(widths) != 4:
            raise ValueError(f"a CIFAR ResNet takes 4 widths (stem and three stages), not {len(widths)}")
        stem, *stages = widths
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = self._stage(stem, stages[0], blocks, stride=1)
        self.layer2 = self._stage(stages[0], stages[1], blocks, stride=2)
        self.layer3 = self._stage(stages[1], stages[2], blocks, stride=2)
        self.fc = nn.Linear(stages[2], num_classes)
        initialise(self, linear="default")

    @staticmethod
    def _stage(inputs: int, width: int, blocks: int, stride: int) -> Stage:
        return Stage(*(BasicBlock(inputs if i == 0 else width, width, stride if i == 0 else 1) for i in range(blocks)))

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        stages = (self.layer1, self.layer2, self.layer3)
        return self._norms({f"stage{i}.preact": f"layer{i}.{len(stage) - 1}.bn2" for i, stage in enumerate(stages, 1)})

    def forward(self, x: Tensor) -> Outputs:
        return self.resume("stage0", F.relu(self.bn1(self.conv1(x)), inplace=True))

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, stage in stages_after(role, (self.layer1, self.layer2, self.layer3), first=0):
            x, features[f"stage{i}.preact"] = stage(x)
            features[f"stage{i}"] = x
        features["final"] = x
        features["pooled"] = pooled = pool(x)
        return Outputs(self.fc(pooled), features)
