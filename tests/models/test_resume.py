"""Resuming networks from a stage's output, and branches of their last stages."""

from collections.abc import Callable

import pytest
import torch

from kdx.models.base import Net
from kdx.models.cifar.mobilenetv2 import MobileNetV2
from kdx.models.cifar.plane import Plane
from kdx.models.cifar.resnet import ResNet
from kdx.models.cifar.resnet_large import ResNetLarge
from kdx.models.cifar.shufflenetv1 import ShuffleNetV1
from kdx.models.cifar.shufflenetv2 import ShuffleNetV2
from kdx.models.cifar.vgg import VGG
from kdx.models.cifar.wrn import WideResNet
from kdx.models.small import MLP, DropoutCNN, SmallCNN

FACTS = {"num_classes": 7, "in_channels": 3}
SHAPED = {"num_classes": 7, "input_shape": (3, 32, 32)}
# no stages, or outputs of regions
OTHERS = {"Linear", "FasterRCNN", "RetinaNet", "OpenVocabularyRCNN"}

# for every network class: a small instance and the side of its input
NETS: dict[str, tuple[Callable[[], Net], int]] = {
    "resnet": (lambda: ResNet(depth=14, widths=(4, 4, 6, 8), **FACTS), 16),
    "large": (lambda: ResNetLarge(block="basic", blocks=(1, 1, 1, 1), widths=(4, 6, 8, 8), **FACTS), 16),
    "wrn": (lambda: WideResNet(depth=10, widen=1, dropout=0.0, **FACTS), 16),
    "vgg": (lambda: VGG(convs=(1, 1, 1, 1, 1), widths=(4, 4, 6, 6, 8), batch_norm=True, **FACTS), 32),
    "vgg of large images": (lambda: VGG(convs=(1,) * 5, widths=(4, 4, 6, 6, 8), batch_norm=False, **FACTS), 66),
    "mobile": (lambda: MobileNetV2(expansion=2, width=0.5, **FACTS), 32),
    "shuffle1": (lambda: ShuffleNetV1(widths=(240, 480, 960), blocks=(2, 2, 2), groups=3, **FACTS), 16),
    "shuffle2": (lambda: ShuffleNetV2(widths=(116, 232, 464, 64), blocks=(2, 2, 2), **FACTS), 16),
    "plane": (lambda: Plane(stages=((4, 4), (6,), (8,)), last_pool=True, hidden=5, **SHAPED), 32),
    "plane, flat": (lambda: Plane(stages=((4,), (6,)), last_pool=False, hidden=None, **SHAPED), 32),
    "mlp": (lambda: MLP(hidden=(9, 8, 7), dropout=0.3, activation="tanh", **SHAPED), 32),
    "cnn": (lambda: SmallCNN(widths=(4, 6), hidden=9, dropout=0.3, **SHAPED), 32),
    "cnn with dropout": (lambda: DropoutCNN(widths=(4, 6), hidden=9, dropouts=(0.3, 0.3), **SHAPED), 32),
}


def made(name: str) -> tuple[Net, torch.Tensor]:
    torch.manual_seed(0)
    make, side = NETS[name]
    net, x = make(), torch.randn(3, 3, side, side)
    net.train()(x)  # non-trivial running statistics
    return net.eval(), x


def stages(net: Net, x: torch.Tensor) -> list[str]:
    return [role for role in net(x).features if role.startswith("stage") and "." not in role]


def test_every_class_of_networks_is_here():
    def below(cls: type) -> set[type]:
        return {cls, *(c for child in cls.__subclasses__() for c in below(child))}

    ours = {c for c in below(Net) - {Net} if c.__module__.startswith("kdx.models.") and c.__name__ not in OTHERS}
    assert ours == {type(make()) for make, _ in NETS.values()}


@pytest.mark.parametrize("name", NETS)
def test_going_on_from_any_stage_gives_the_same(name: str):
    net, x = made(name)
    whole = net(x)
    assert len(stages(net, x)) > 1
    for role in stages(net, x):
        rest = net.resume(role, whole.features[role])
        assert torch.equal(rest.logits, whole.logits), role
        for later, feature in rest.features.items():
            assert torch.equal(feature, whole.features[later]), (role, later)
        later = [r for r in stages(net, x) if r >= role]
        assert {*later, "pooled"} <= rest.features.keys()


@pytest.mark.parametrize("name", NETS)
def test_what_is_no_stage_is_refused(name: str):
    net, x = made(name)
    for role in ("pooled", "stage9", "stage1.preact"):
        with pytest.raises(ValueError, match="cannot resume from .*; choose one of: .*stage1"):
            net.resume(role, x)
