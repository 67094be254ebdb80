"""The CIFAR Wide ResNets of depth 6n + 4: wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2."""

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import PartialFraction, PositiveInt
from kdx.models.base import Net, stages_after
from kdx.models.cifar.blocks import initialise, pool


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.dropout = dropout
        # named as in published checkpoints
        self.convShortcut = None if inputs == width else nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, and the input after the first batch norm."""
        preact = self.bn1(x)
        y = F.relu(preact)
        # where the width changes, the shortcut starts from the activated input
        x = x if self.convShortcut is None else self.convShortcut(y)
        y = F.relu(self.bn2(self.conv1(y)), inplace=True)
        y = F.dropout(y, self.dropout, self.training) if self.dropout else y
        return x + self.conv2(y), preact


class Group(nn.Module):
    """Blocks of the same resolution."""

    def __init__(self, inputs: int, width: int, blocks: int, stride: int, dropout: float):
        super().__init__()
        self.layer = nn.Sequential(
            *(WideBlock(width if i else inputs, width, 1 if i else stride, dropout) for i in range(blocks))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, and the input after the first block's first batch norm."""
        first = None
        for block in self.layer:
            x, preact = block(x)
            first = preact if first is None else first
        assert first is not None
        return x, first


class WideResNet(Net):
    """Three groups of (depth - 4) / 6 pre-activation blocks at full, half and quarter resolution.

    Features: `stage0` (the first convolution), `stage1` ... `stage3`, each group's sum, which has no
    ReLU in a pre-activation network; `stage1.preact` ... `stage3.preact`, the same after the next batch norm;
    `final`, after the last ReLU; `pooled`. All as in the literature, with one exception: there the batch norms run a
    second time for the features and update their statistics twice a step; here they run once.
    Initialisation: convolutions He normal over fan_out, batch norms 1 and 0, the classifier's bias 0.

    Args:
        depth: Number of layers, 6n + 4.
        widen: Width multiplier for the base widths 16, 32, 64; the stem keeps 16.
        dropout: Dropout rate between a block's convolutions.
        num_classes: Number of classes, C.
        in_channels: Channels of the input; any height and width.

    Raises:
        ValueError: The depth is not 6n + 4.

    References:
        Sergey Zagoruyko and Nikos Komodakis, "Wide Residual Networks", 2016, https://arxiv.org/abs/1605.07146
    """

    def __init__(
        self,
        depth: PositiveInt,
        widen: PositiveInt,
        dropout: PartialFraction,
        num_classes: PositiveInt,
        in_channels: PositiveInt,
    ):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"the depth of a Wide ResNet must be 6n + 4 (10, 16, 22, ...), not {depth}")
        blocks, widths = (depth - 4) // 6, [16 * widen, 32 * widen, 64 * widen]
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = Group(16, widths[0], blocks, 1, dropout)
        self.block2 = Group(widths[0], widths[1], blocks, 2, dropout)
        self.block3 = Group(widths[1], widths[2], blocks, 2, dropout)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)
        initialise(self, linear="zero_bias")

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        paths = {"stage1": "block2.layer.0.bn1", "stage2": "block3.layer.0.bn1", "stage3": "bn1"}
        return self._norms({f"{stage}.preact": path for stage, path in paths.items()})

    def forward(self, x: Tensor) -> Outputs:
        return self.resume("stage0", self.conv1(x))

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, group in stages_after(role, (self.block1, self.block2, self.block3), first=0):
            x, preact = group(x)
            if i > 1:
                features[f"stage{i - 1}.preact"] = preact
            features[f"stage{i}"] = x
        features["stage3.preact"] = preact = self.bn1(x)
        features["final"] = final = F.relu(preact)
        features["pooled"] = pooled = pool(final)
        return Outputs(self.fc(pooled), features)
