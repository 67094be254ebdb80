"""The MobileNetV2 of the CIFAR distillation literature, at half width."""

from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import Positive, PositiveInt
from kdx.models.base import Net, stages_after
from kdx.models.cifar.blocks import initialise, pool

# channels at width 1, number of blocks, stride of the first block; the first row does not expand
_ROWS = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
# rows whose outputs the literature uses as features
_STAGES = {1: "stage1", 2: "stage2", 4: "stage3", 6: "stage4"}


def _conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs)


class InvertedResidual(nn.Module):
    """Inverted residual: 1x1 expansion, 3x3 depthwise convolution, linear 1x1 projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *_conv(inputs, inner, 1, 1, 1),
            nn.ReLU(inplace=True),
            *_conv(inner, inner, 3, stride, inner),
            nn.ReLU(inplace=True),
            *_conv(inner, outputs, 1, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(Net):
    """MobileNetV2 with stride 1 in the second row and 2 in the stem, so that 32 pixels end as 2.

    Features: `stage0` (stem), `stage1` ... `stage4` (rows 2, 3, 5 and 7), `final` (after the last 1x1
    convolution) and `pooled`. The rows end without a ReLU, so `stage1.preact` ... are the same tensors as
    `stage1` ..., as in the literature.
    Initialisation: convolutions He normal over fan_out, batch norms 1 and 0, the classifier N(0, 0.01^2)
    with bias 0.

    Args:
        expansion: Ratio of a block's inner channels to its input channels.
        width: Width multiplier; the last convolution's 1280 channels are scaled only if it exceeds 1.
        num_classes: Number of classes, C.
        in_channels: Channels of the input; any height and width.

    References:
        Mark Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018,
        https://arxiv.org/abs/1801.04381
    """

    def __init__(self, expansion: PositiveInt, width: Positive, num_classes: PositiveInt, in_channels: PositiveInt):
        super().__init__()
        inputs = int(32 * width)
        self.conv1 = nn.Sequential(*_conv(in_channels, inputs, 3, 2, 1), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList()
        for i, (channels, blocks, stride) in enumerate(_ROWS):
            row = []
            for j in range(blocks):
                outputs = int(channels * width)
                row.append(InvertedResidual(inputs, outputs, 1 if j else stride, expansion if i else 1))
                inputs = outputs
            self.blocks.append(nn.Sequential(*row))
        last = int(1280 * max(width, 1.0))
        self.conv2 = nn.Sequential(*_conv(inputs, last, 1, 1, 1), nn.ReLU(inplace=True))
        self.classifier = nn.Sequential(nn.Linear(last, num_classes))
        initialise(self, linear="normal")

    @property
    def head(self) -> nn.Linear:
        head = self.classifier[0]
        assert isinstance(head, nn.Linear)
        return head

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        return self._norms({f"{role}.preact": f"blocks.{i}.{_ROWS[i][1] - 1}.conv.7" for i, role in _STAGES.items()})

    def forward(self, x: Tensor) -> Outputs:
        return self.resume("stage0", self.conv1(x))

    def resume(self, role: str, x: Tensor) -> Outputs:
        ends = [-1, *_STAGES]  # last row of each stage; the stem precedes the first
        features = {role: x}
        for stage, _ in stages_after(role, [self.blocks[i] for i in _STAGES], first=0):
            for row in self.blocks[ends[stage - 1] + 1 : ends[stage] + 1]:
                x = row(x)
            features[_STAGES[ends[stage]]] = features[f"{_STAGES[ends[stage]]}.preact"] = x
        features["final"] = x = self.conv2(x)
        features["pooled"] = pooled = pool(x)
        return Outputs(self.classifier(pooled), features)
