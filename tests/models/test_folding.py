"""Folded networks against the originals, in float64, so that rounding hides no error."""

import pytest
import torch
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.models.build import timm_model
from kdx.models.cifar.mobilenetv2 import MobileNetV2
from kdx.models.cifar.plane import Plane
from kdx.models.cifar.resnet import ResNet
from kdx.models.cifar.resnet_large import ResNetLarge
from kdx.models.cifar.shufflenetv1 import ShuffleNetV1
from kdx.models.cifar.shufflenetv2 import ShuffleNetV2
from kdx.models.cifar.vgg import VGG
from kdx.models.cifar.wrn import WideResNet
from kdx.models.teachers.folding import fold

# whether all norms are folded; a norm that reads a sum is not
NETS = {
    "resnet": (lambda: ResNet(14, [4, 4, 8, 8], 5, 3), True),
    "resnet_large": (lambda: ResNetLarge("bottleneck", [1, 1, 1, 1], [4, 4, 8, 8], 5, 3), True),
    "vgg": (lambda: VGG([1, 1, 2, 1, 1], [4, 4, 8, 8, 8], True, 5, 3), True),
    "plane": (lambda: Plane([[4], [8, 8]], True, None, 5, (3, 16, 16)), True),
    "wrn": (lambda: WideResNet(10, 1, 0.0, 5, 3), False),
    "mobilenetv2": (lambda: MobileNetV2(6, 0.5, 5, 3), True),
    "shufflenetv1": (lambda: ShuffleNetV1([48, 96, 192], [1, 1, 1], 3, 5, 3), True),
    "shufflenetv2": (lambda: ShuffleNetV2([16, 32, 64, 64], [1, 1, 1], 5, 3), True),
    "timm": (lambda: timm_model("resnet10t", False, 5, 3, 0.0, 0.0, None, {}), False),
}


def settled(net: nn.Module) -> nn.Module:
    """A network in evaluation mode and float64, with batch norms far from the identity."""
    torch.manual_seed(0)
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None:
            nn.init.uniform_(m.weight, 0.5, 1.5), nn.init.normal_(m.bias)
            m.running_mean.normal_(), m.running_var.uniform_(0.5, 2.0)
    return net.eval().double()


def norms(net: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


@pytest.mark.parametrize("name", NETS)
def test_every_output_stays_and_norms_go(name: str):
    make, completely = NETS[name]
    net = settled(make())
    x = torch.randn(3, 3, 32 if name != "plane" else 16, 32 if name != "plane" else 16).double()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        folded = fold(net, x[:2])
        plain, fast = net(x), folded(x)
    assert plain.features.keys() == fast.features.keys() and len(plain.features) > 2
    for role in plain.features:
        torch.testing.assert_close(fast.features[role], plain.features[role], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fast.logits, plain.logits, rtol=1e-9, atol=1e-9)
    assert norms(folded) == 0 if completely else norms(folded) < norms(net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("name", ["resnet", "wrn"])
def test_in_single_precision_it_is_within_rounding(name: str):
    net = settled(NETS[name][0]()).float()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        plain, fast = net(x), fold(net, x)(x)
    assert (plain.logits - fast.logits).abs().max() <= 1e-5 * plain.logits.abs().max()


class Trap(nn.Module):
    """A convolution and a norm that must not be folded, for one reason each."""

    def __init__(self, reason: str):
        super().__init__()
        self.reason = reason
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3, track_running_stats=reason != "no statistics")

    def forward(self, x: Tensor) -> Outputs:
        y = self.conv(x)
        if self.reason == "conv twice":
            y = self.conv(y)
        z = self.norm(y)
        if self.reason == "norm twice":
            z = self.norm(z)
        if self.reason == "read elsewhere":
            z = z + y
        if self.reason == "changed before":
            y.mul_(2)
            z = self.norm(y)
        features = {"map": y} if self.reason == "a feature" else {}
        return Outputs(z.mean((2, 3)), features)


@pytest.mark.parametrize(
    "reason", ["conv twice", "norm twice", "read elsewhere", "changed before", "a feature", "no statistics"]
)
def test_what_others_see_is_left_alone(reason: str):
    net, x = settled(Trap(reason)), torch.randn(4, 3, 8, 8).double()
    with torch.no_grad():
        folded = fold(net, x)
        plain, fast = net(x), folded(x)
    torch.testing.assert_close(fast.logits, plain.logits, rtol=1e-9, atol=1e-9)
    for role, feature in plain.features.items():
        torch.testing.assert_close(fast.features[role], feature, rtol=1e-9, atol=1e-9)
    assert norms(folded) == 1


def test_without_a_reason_the_same_net_is_merged():
    net = settled(Trap(""))
    assert norms(fold(net, torch.randn(2, 3, 8, 8).double())) == 0
