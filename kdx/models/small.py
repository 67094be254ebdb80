"""Small networks for digits, MNIST and studies at CPU scale."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import PartialFraction, PositiveInt
from kdx.models.base import Net, stages_after

Activation = Literal["relu", "softplus", "tanh"]
_ACTIVATIONS = {"relu": F.relu, "softplus": F.softplus, "tanh": F.tanh}


class MLP(Net):
    """A multilayer perceptron on the flattened input.

    Methods that match derivatives need a smooth activation: the second derivative of a ReLU network is 0 almost
    everywhere.

    Features: `stage1` ... `stageN`, the output [B, width] of each hidden layer after its activation and before its
    dropout; `stage1.preact` ...; `pooled`, the last of them.
    Initialisation: torch's own.

    Args:
        hidden: Width of each hidden layer.
        dropout: Dropout rate of each hidden layer.
        activation: Nonlinearity of the hidden layers.
        num_classes: Number of classes, C.
        input_shape: Shape of one input, which is flattened.

    Raises:
        ValueError: No hidden layer, or an unknown activation.
    """

    def __init__(
        self,
        hidden: Sequence[int],
        dropout: PartialFraction,
        activation: Activation,
        num_classes: PositiveInt,
        input_shape: Sequence[int],
    ):
        super().__init__()
        if not hidden:
            raise ValueError("an MLP needs at least one hidden layer, got none")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, not '{activation}'")
        self.activation = activation
        self.dropout = dropout
        widths = [math.prod(input_shape), *hidden]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.fc = nn.Linear(widths[-1], num_classes)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def forward(self, x: Tensor) -> Outputs:
        preact = self.layers[0](x.flatten(1))
        rest = self.resume("stage1", _ACTIVATIONS[self.activation](preact))
        return Outputs(rest.logits, {"stage1.preact": preact, **rest.features})

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, layer in stages_after(role, list(self.layers), first=1):
            features[f"stage{i}.preact"] = preact = layer(self._dropped(x))
            features[f"stage{i}"] = x = _ACTIVATIONS[self.activation](preact)
        features["pooled"] = x
        return Outputs(self.fc(self._dropped(x)), features)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Linear(Net):
    """Softmax regression: one linear layer on the flattened input.

    Features: `pooled`, the flattened input [B, D].
    Initialisation: zeros, so that runs differ in their data order alone.

    Args:
        num_classes: Number of classes, C.
        input_shape: Shape of one input, which is flattened.
    """

    def __init__(self, num_classes: PositiveInt, input_shape: Sequence[int]):
        super().__init__()
        self.fc = nn.Linear(math.prod(input_shape), num_classes)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def forward(self, x: Tensor) -> Outputs:
        flat = x.flatten(1)
        return Outputs(self.fc(flat), {"pooled": flat})


class SmallCNN(Net):
    """3x3 convolutions with batch norm and ReLU, each followed by a 2x2 max pool; a hidden layer; a classifier.

    Features: `stage1` ... `stageN`, the maps before their pool, and `stage1.preact` ...; `pooled`, the
    hidden layer after its ReLU and before its dropout, [B, hidden].
    Initialisation: torch's own.

    Args:
        widths: Channels of each convolution.
        hidden: Width of the hidden layer.
        dropout: Dropout rate of the hidden layer.
        num_classes: Number of classes, C.
        input_shape: (C, H, W) of one input.

    Raises:
        ValueError: The input is not an image, or too small for the pools.

    References:
        Yann LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998,
        https://doi.org/10.1109/5.726791 (the layout of the network; the layers are modern)
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden: PositiveInt,
        dropout: PartialFraction,
        num_classes: PositiveInt,
        input_shape: Sequence[int],
    ):
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"a CNN reads images (C, H, W), but the input shape is {tuple(input_shape)}")
        channels, height, width = input_shape
        shrink = 2 ** len(widths)
        if min(height, width) < shrink:
            raise ValueError(f"{len(widths)} pools need images of at least {shrink} pixels, not {height} x {width}")
        self.dropout = dropout
        inputs = [channels, *widths]
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o)) for i, o in pairwise(inputs)
        )
        self.hidden = nn.Linear(inputs[-1] * (height // shrink) * (width // shrink), hidden)
        self.fc = nn.Linear(hidden, num_classes)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        return self._norms({f"stage{i + 1}.preact": f"convs.{i}.1" for i in range(len(self.convs))})

    def forward(self, x: Tensor) -> Outputs:
        preact = self.convs[0](x)
        rest = self.resume("stage1", F.relu(preact))
        return Outputs(rest.logits, {"stage1.preact": preact, **rest.features})

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, conv in stages_after(role, list(self.convs), first=1):
            features[f"stage{i}.preact"] = preact = conv(F.max_pool2d(x, 2))
            features[f"stage{i}"] = x = F.relu(preact)
        features["pooled"] = x = F.relu(self.hidden(F.max_pool2d(x, 2).flatten(1)))
        x = F.dropout(x, self.dropout, self.training) if self.dropout else x
        return Outputs(self.fc(x), features)


class DropoutCNN(Net):
    """Two unpadded 3x3 convolutions with ReLU, a 2x2 max pool, a hidden layer with ReLU, a classifier; dropout twice.

    Features: `stage1`, `stage2`, the map after each convolution's ReLU, and `stage1.preact` ...; `pooled`, the hidden
    layer after its ReLU and before its dropout, [B, hidden].
    Initialisation: torch's own.

    Args:
        widths: Channels of the two convolutions.
        hidden: Width of the hidden layer.
        dropouts: Dropout rates after the pool and after the hidden layer.
        num_classes: Number of classes, C.
        input_shape: (C, H, W) of one input.

    Raises:
        ValueError: The input is not an image of at least 6 x 6 pixels, or a list has not two numbers.

    References:
        PyTorch examples, "Basic MNIST Example", https://github.com/pytorch/examples/tree/main/mnist
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023.
        https://arxiv.org/abs/2205.16004
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden: PositiveInt,
        dropouts: Sequence[PartialFraction],
        num_classes: PositiveInt,
        input_shape: Sequence[int],
    ):
        super().__init__()
        if len(input_shape) != 3 or min(input_shape[1:]) < 6:
            raise ValueError(f"this CNN reads images of at least 6 x 6 pixels, but the input is {tuple(input_shape)}")
        if not len(widths) == len(dropouts) == 2:
            raise ValueError(f"widths and dropouts must have two numbers, found {list(widths)} and {list(dropouts)}")
        channels, height, width = input_shape
        self.dropouts = tuple(dropouts)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3) for i, o in pairwise([channels, *widths]))
        self.hidden = nn.Linear(widths[1] * ((height - 4) // 2) * ((width - 4) // 2), hidden)
        self.fc = nn.Linear(hidden, num_classes)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def forward(self, x: Tensor) -> Outputs:
        preact = self.convs[0](x)
        rest = self.resume("stage1", F.relu(preact))
        return Outputs(rest.logits, {"stage1.preact": preact, **rest.features})

    def resume(self, role: str, x: Tensor) -> Outputs:
        features = {role: x}
        for i, conv in stages_after(role, list(self.convs), first=1):
            features[f"stage{i}.preact"] = preact = conv(x)
            features[f"stage{i}"] = x = F.relu(preact)
        after_pool, after_hidden = self.dropouts
        x = F.dropout(F.max_pool2d(x, 2), after_pool, self.training)
        features["pooled"] = x = F.relu(self.hidden(x.flatten(1)))
        return Outputs(self.fc(F.dropout(x, after_hidden, self.training)), features)
