"""The ShuffleNet v1 of the CIFAR distillation literature."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import PositiveInt
from kdx.models.base import Net, stages_after
from kdx.models.cifar.blocks import Stage, pool, shuffle

_STEM = 24


class ShuffleUnit(nn.Module):
    """Grouped 1x1, channel shuffle, 3x3 depthwise, grouped 1x1; returns the result before its ReLU.

    With stride 2 the pooled input is concatenated; with stride 1 the input is added.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int):
        super().__init__()
        outputs = outputs - inputs if stride == 2 else outputs
        inner = outputs // 4
        # the stem has too few channels for groups
        self.groups = 1 if inputs == _STEM else groups
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, inner, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(F.relu(self.bn1(self.conv1(x)), inplace=True), self.groups)
        # the paper has no ReLU here, but the network behind the literature's numbers has one
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return torch.cat([y, F.avg_pool2d(x, 3, 2, padding=1)], 1) if self.stride == 2 else y + x


class ShuffleNetV1(Net):
    """A 1x1 stem of 24 channels at full resolution, then three stages that each halve it.

    Features: `stage0` ... `stage3`, `stage1.preact` ... `stage3.preact`, `final` (= `stage3`), `pooled`.
    Initialisation: torch's own, as in the literature.

    Args:
        widths: Channels of each of the three stages.
        blocks: Number of units of each stage.
        groups: Groups of the 1x1 convolutions.
        num_classes: Number of classes, C.
        in_channels: Channels of the input; any height and width.

    Raises:
        ValueError: The number of stages is not three, or the widths are not multiples of 4 times the groups.

    References:
        Xiangyu Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices",
        2018, https://arxiv.org/abs/1707.01083
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        groups: PositiveInt,
        num_classes: PositiveInt,
        in_channels: PositiveInt,
    ):
        super().__init__()
        if len(widths) != 3 or len(blocks) != 3:
            raise ValueError(f"a ShuffleNet has 3 stages, but got {len(widths)} widths and {len(blocks)} block counts")
        if any(w % (4 * groups) for w in widths):
            raise ValueError(f"widths {tuple(widths)} must be multiples of 4 times the groups, {4 * groups}")
        self.conv1 = nn.Conv2d(in_channels, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        inputs, stages = _STEM, []
        for width, count in zip(widths, blocks, strict=True):
            units = [ShuffleUnit(width if i else inputs, width, 1 if i else 2, groups) for i in range(count)]
            stages.append(Stage(*units))
            inputs = width
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, num_classes)

    @property
    def head(self) -> nn.Linear:
        return self.linear

    def forward(self, x: Tensor) -> Outputs:
        return self.resume("stage0", F.relu(self.bn1(self.conv1(x)), inplace=True))

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, stage in stages_after(role, (self.layer1, self.layer2, self.layer3), first=0):
            x, features[f"stage{i}.preact"] = stage(x)
            features[f"stage{i}"] = x
        features["final"] = x
        features["pooled"] = pooled = pool(x)
        return Outputs(self.linear(pooled), features)
