"""The plain networks of the teacher assistant papers: 2 to 10 convolutions, without shortcuts."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import PositiveInt
from kdx.models.base import Net, stages_after


class Plane(Net):
    """Stages of 3x3 convolutions with batch norm and ReLU, a 2x2 max pool after each, then one or two linear layers.

    Features: `stage1` ... `stageN`, before each pool, and `stage1.preact` ...; `pooled`, the input of the classifier:
    the hidden layer after its ReLU, or the flattened last map if there is no hidden layer.
    Initialisation: torch's own, as in the papers' code.

    Args:
        stages: Channels of each convolution of each stage.
        last_pool: Whether a pool follows the last stage too.
        hidden: Width of the hidden linear layer before the classifier; None for no hidden layer.
        num_classes: Number of classes, C.
        input_shape: (C, H, W) of one input.

    Raises:
        ValueError: No stages, or the input is not an image or too small for the pools.

    References:
        Seyed Iman Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", 2020,
        https://arxiv.org/abs/1902.03393
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        last_pool: bool,
        hidden: PositiveInt | None,
        num_classes: PositiveInt,
        input_shape: Sequence[int],
    ):
        super().__init__()
        if not stages or not all(stages):
            raise ValueError("a plain network needs at least one stage, and at least one convolution in each")
        if len(input_shape) != 3:
            raise ValueError(f"a plain network reads images (C, H, W), but the input shape is {tuple(input_shape)}")
        self.pools = len(stages) if last_pool else len(stages) - 1
        shrink = 2**self.pools
        inputs, height, width = input_shape
        if min(height, width) < shrink:
            raise ValueError(f"{self.pools} pools need images of at least {shrink} pixels, not {height} x {width}")
        self.stages = nn.ModuleList()
        for widths in stages:
            layers: list[nn.Module] = []
            for outputs in widths:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
                inputs = outputs
            self.stages.append(nn.Sequential(*layers[:-1]))
        flat = inputs * (height // shrink) * (width // shrink)
        self.hidden = None if hidden is None else nn.Linear(flat, hidden)
        self.fc = nn.Linear(flat if hidden is None else hidden, num_classes)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        last = [len(list(stage.children())) - 1 for stage in self.stages]
        return self._norms({f"stage{i + 1}.preact": f"stages.{i}.{j}" for i, j in enumerate(last)})

    def forward(self, x: Tensor) -> Outputs:
        preact = self.stages[0](x)
        rest = self.resume("stage1", F.relu(preact))
        return Outputs(rest.logits, {"stage1.preact": preact, **rest.features})

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, stage in stages_after(role, list(self.stages), first=1):
            features[f"stage{i}.preact"] = preact = stage(F.max_pool2d(x, 2))
            features[f"stage{i}"] = x = F.relu(preact)
        x = (F.max_pool2d(x, 2) if self.pools == len(self.stages) else x).flatten(1)
        features["pooled"] = x = x if self.hidden is None else F.relu(self.hidden(x))
        return Outputs(self.fc(x), features)
