"""Blocks and initial weights of the CIFAR networks, against torchvision's blocks and the stated distributions."""

import math

import pytest
import torch
from torch import nn
from torchvision.models import resnet as reference

from kdx.models.cifar.resnet import BasicBlock, ResNet
from kdx.models.cifar.resnet_large import Basic
from kdx.models.cifar.shufflenetv2 import ShuffleNetV2
from kdx.models.cifar.vgg import VGG
from kdx.models.cifar.wrn import WideResNet
from kdx.models.teachers.folding import fold


def settle(net: nn.Module) -> nn.Module:
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5), nn.init.normal_(m.bias)
    return net.double()


@pytest.mark.parametrize("ours", [BasicBlock, Basic])
@pytest.mark.parametrize(("inputs", "width", "stride"), [(6, 6, 1), (4, 6, 1), (4, 6, 2)])
def test_a_basic_block_adds_its_input_as_torchvisions_does(ours, inputs: int, width: int, stride: int):
    shortcut = None
    if stride != 1 or inputs != width:
        shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    theirs = settle(reference.BasicBlock(inputs, width, stride, shortcut))
    block = ours(inputs, width, stride).double()
    weights = list(theirs.state_dict().values())
    own = block.state_dict()
    assert [v.shape for v in own.values()] == [v.shape for v in weights]
    block.load_state_dict(dict(zip(own, weights, strict=True)))
    x = torch.randn(3, inputs, 8, 8).double()
    # the stage applies the last ReLU
    torch.testing.assert_close(block(x).relu(), theirs(x))


@pytest.mark.parametrize("make", [lambda: WideResNet(16, 4, 0.0, 10, 3), lambda: ResNet(8, [32, 32, 64, 128], 10, 3)])
def test_convolutions_start_normal_over_fan_out_and_norms_at_the_identity(make):
    net = make()
    drawn = []
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            drawn.append(m.weight.detach().flatten() * math.sqrt(m.out_channels * m.kernel_size[0] ** 2 / 2))
        elif isinstance(m, nn.BatchNorm2d):
            assert (m.weight == 1).all() and (m.bias == 0).all()
    scaled = torch.cat(drawn)
    assert len(scaled) > 1e5
    assert abs(scaled.mean()) < 0.01 and abs(scaled.std() - 1) < 0.01
    assert abs((scaled.abs() < 1).float().mean() - 0.6827) < 0.01  # normal, not uniform
    # each layer by itself, so that fan_in cannot stand in for fan_out
    assert all(abs(layer.std() - 1) < 0.12 for layer in drawn if len(layer) > 300)


def test_a_wide_resnets_classifier_starts_without_bias():
    net = WideResNet(16, 2, 0.0, 100, 3)
    assert (net.fc.bias == 0).all()
    bound = 1 / math.sqrt(net.fc.in_features)
    assert net.fc.weight.abs().max() <= bound and abs(net.fc.weight.std() - bound / math.sqrt(3)) < 0.01 * bound


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_without_weights_folds_too(affine: bool, bias: bool):
    net = nn.Sequential(nn.Conv2d(3, 5, 3, bias=bias), nn.BatchNorm2d(5, affine=affine), nn.ReLU())
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2.0)
    if affine:
        nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.normal_(norm.bias)
    net, x = net.eval().double(), torch.randn(4, 3, 6, 6).double()
    with torch.no_grad():
        folded = fold(net, x)
        torch.testing.assert_close(folded(x), net(x), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VGG([1] * 4, [4] * 5, True, 5, 3), "got 4 counts and 5 widths"),
        (lambda: VGG([1] * 5, [4] * 6, True, 5, 3), "got 5 counts and 6 widths"),
        (lambda: ShuffleNetV2([16, 32, 64], [1, 1, 1], 5, 3), "got 3 and 3"),
        (lambda: ShuffleNetV2([16, 32, 64, 64], [1, 1], 5, 3), "got 4 and 2"),
        (lambda: WideResNet(4, 1, 0.0, 5, 3), "not 4"),
        (lambda: WideResNet(17, 1, 0.0, 5, 3), "not 17"),
        (lambda: ResNet(2, [4, 4, 8, 8], 5, 3), "not 2"),
        (lambda: ResNet(9, [4, 4, 8, 8], 5, 3), "not 9"),
        (lambda: ResNet(8, [4, 4, 8], 5, 3), "not 3"),
    ],
)
def test_each_wrong_argument_is_refused_alone(make, match: str):
    with pytest.raises(ValueError, match=match):
        make()
