"""The CIFAR VGGs with a single linear layer: vgg8, vgg11, vgg13, vgg16, vgg19."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import PositiveInt
from kdx.models.base import Net, stages_after
from kdx.models.cifar.blocks import initialise, pool


class VGG(Net):
    """Five stages of 3x3 convolutions; max pools after the first three, and after the fourth from 64 pixels on.

    Features: `stage0` ... `stage4`, after each stage's last ReLU and before its pool; `stage1.preact`
    ... `stage4.preact`; `final` (= `stage4`); `pooled`.
    Initialisation: convolutions He normal over fan_out with bias 0, batch norms 1 and 0, the classifier
    N(0, 0.01^2) with bias 0.

    Args:
        convs: Number of convolutions of each of the five stages.
        widths: Channels of each stage.
        batch_norm: Whether a batch norm follows each convolution.
        num_classes: Number of classes, C.
        in_channels: Channels of the input; at least 8 x 8 pixels.

    Raises:
        ValueError: The number of stages or widths is not five.

    References:
        Karen Simonyan and Andrew Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
        2015, https://arxiv.org/abs/1409.1556
    """

    def __init__(
        self,
        convs: Sequence[int],
        widths: Sequence[int],
        batch_norm: bool,
        num_classes: PositiveInt,
        in_channels: PositiveInt,
    ):
        super().__init__()
        if len(convs) != 5 or len(widths) != 5:
            raise ValueError(f"a VGG has 5 stages, but got {len(convs)} counts and {len(widths)} widths")
        inputs = [in_channels, *widths[:-1]]
        stages = [self._stage(i, o, n, batch_norm) for i, o, n in zip(inputs, widths, convs, strict=True)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = stages
        self.classifier = nn.Linear(widths[-1], num_classes)
        initialise(self, linear="normal")

    @staticmethod
    def _stage(inputs: int, width: int, convs: int, batch_norm: bool) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(convs):
            layers.append(nn.Conv2d(width if i else inputs, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers[:-1])  # the network applies the last ReLU

    @property
    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.block0, self.block1, self.block2, self.block3, self.block4

    @property
    def head(self) -> nn.Linear:
        return self.classifier

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        last = {f"stage{i}.preact": stage[-1] for i, stage in enumerate(self._stages) if i}
        return {role: m for role, m in last.items() if isinstance(m, nn.BatchNorm2d)}

    def forward(self, x: Tensor) -> Outputs:
        return self.resume("stage0", F.relu(self.block0(x)))

    def resume(self, role: str, x: Tensor) -> Outputs:
        following = stages_after(role, self._stages[1:], first=0)
        # the fourth pool depends on the input's height, which equals the first stage's
        done = len(self._stages) - 1 - len(following)
        pools = 4 if x.shape[2] * 2 ** min(done, 3) >= 64 else 3
        features = {role: x}
        for i, stage in following:
            features[f"stage{i}.preact"] = preact = stage(F.max_pool2d(x, 2) if i <= pools else x)
            features[f"stage{i}"] = x = F.relu(preact)
        features["final"] = x
        features["pooled"] = pooled = pool(x)
        return Outputs(self.classifier(pooled), features)
