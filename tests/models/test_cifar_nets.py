"""The CIFAR networks against published sizes and costs and closed forms, and their feature shapes."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from kdx.models.cifar.mobilenetv2 import MobileNetV2
from kdx.models.cifar.resnet import ResNet
from kdx.models.cifar.resnet_large import ResNetLarge
from kdx.models.cifar.shufflenetv1 import ShuffleNetV1
from kdx.models.cifar.shufflenetv2 import ShuffleNetV2
from kdx.models.cifar.vgg import VGG
from kdx.models.cifar.wrn import WideResNet

NARROW, WIDE, LARGE = (16, 16, 32, 64), (32, 64, 128, 256), (64, 128, 256, 512)


def resnet(depth: int, widths: tuple[int, ...] = NARROW, c: int = 100, i: int = 3) -> ResNet:
    return ResNet(depth=depth, widths=widths, num_classes=c, in_channels=i)


def large(block: str, *blocks: int, c: int = 100) -> ResNetLarge:
    return ResNetLarge(block=block, blocks=blocks, widths=LARGE, num_classes=c, in_channels=3)


def wrn(depth: int, widen: int, c: int = 100, i: int = 3) -> WideResNet:
    return WideResNet(depth=depth, widen=widen, dropout=0.0, num_classes=c, in_channels=i)


VGGS = {8: (1,) * 5, 11: (1, 1, 2, 2, 2), 13: (2,) * 5, 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(depth: int, c: int = 100, i: int = 3) -> VGG:
    return VGG(convs=VGGS[depth], widths=(64, 128, 256, 512, 512), batch_norm=True, num_classes=c, in_channels=i)


def mobile(c: int = 100, i: int = 3) -> MobileNetV2:
    return MobileNetV2(expansion=6, width=0.5, num_classes=c, in_channels=i)


def shuffle1(c: int = 100, i: int = 3) -> ShuffleNetV1:
    return ShuffleNetV1(widths=(240, 480, 960), blocks=(4, 8, 4), groups=3, num_classes=c, in_channels=i)


def shuffle2(c: int = 100, i: int = 3) -> ShuffleNetV2:
    return ShuffleNetV2(widths=(116, 232, 464, 1024), blocks=(3, 7, 3), num_classes=c, in_channels=i)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# published values for CIFAR-100
PUBLISHED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (lambda: resnet(20), 278_324),
    "resnet32": (lambda: resnet(32), 472_756),
    "resnet56": (lambda: resnet(56), 861_620),
    "resnet110": (lambda: resnet(110), 1_736_564),
    "resnet8x4": (lambda: resnet(8, WIDE), 1_233_540),
    "resnet32x4": (lambda: resnet(32, WIDE), 7_433_860),
    "resnet50": (lambda: large("bottleneck", 3, 4, 6, 3), 23_705_252),
    "wrn_16_2": (lambda: wrn(16, 2), 703_284),
    "wrn_40_2": (lambda: wrn(40, 2), 2_255_156),
    "wrn_40_1": (lambda: wrn(40, 1), 569_780),
    "vgg8": (lambda: vgg(8), 3_965_028),
    "vgg13": (lambda: vgg(13), 9_462_180),
    "mobilenetv2_half": (mobile, 812_836),
    "shufflenetv1": (shuffle1, 949_258),
    "shufflenetv2": (shuffle2, 1_355_528),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_published(name: str):
    make, expected = PUBLISHED[name]
    assert size(make()) == expected


def conv_bn(i: int, o: int, k: int) -> int:
    return i * o * k * k + 2 * o


def basic(i: int, o: int, stride: int) -> int:
    return conv_bn(i, o, 3) + conv_bn(o, o, 3) + (conv_bn(i, o, 1) if stride > 1 or i != o else 0)


def resnet_size(depth: int, w: tuple[int, ...], classes: int, channels: int) -> int:
    n = (depth - 2) // 6
    body = sum(basic(w[s], w[s + 1], 1 + (s > 0)) + (n - 1) * basic(w[s + 1], w[s + 1], 1) for s in range(3))
    return conv_bn(channels, w[0], 3) + body + (w[3] + 1) * classes


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
@pytest.mark.parametrize(("classes", "channels"), [(100, 3), (10, 1)])
def test_resnet_parameters_follow_the_closed_form(depth: int, classes: int, channels: int):
    assert size(resnet(depth, c=classes, i=channels)) == resnet_size(depth, NARROW, classes, channels)


@pytest.mark.parametrize("blocks", [(2, 2, 2, 2), (3, 4, 6, 3)])
def test_large_resnet_parameters_follow_the_closed_form(blocks: tuple[int, ...]):
    expected, inputs = conv_bn(3, 64, 3), 64
    for stage, (n, width) in enumerate(zip(blocks, LARGE, strict=True)):
        expected += basic(inputs, width, 1 + (stage > 0)) + (n - 1) * basic(width, width, 1)
        inputs = width
    assert size(large("basic", *blocks)) == expected + 513 * 100


@pytest.mark.parametrize(("depth", "widen"), [(10, 4), (16, 1), (16, 2), (40, 1), (40, 2)])
def test_wide_resnet_parameters_follow_the_closed_form(depth: int, widen: int):
    n, w = (depth - 4) // 6, [16, 16 * widen, 32 * widen, 64 * widen]
    expected = 3 * 16 * 9 + 2 * w[3] + (w[3] + 1) * 100
    for i, o in pairwise(w):
        expected += 2 * i + 9 * i * o + 2 * o + 9 * o * o + (i * o if i != o else 0)
        expected += (n - 1) * (4 * o + 18 * o * o)
    assert size(wrn(depth, widen)) == expected


@pytest.mark.parametrize("depth", VGGS)
def test_vgg_parameters_follow_the_closed_form(depth: int):
    expected, i = 513 * 100, 3
    for n, o in zip(VGGS[depth], (64, 128, 256, 512, 512), strict=True):
        for _ in range(n):
            expected += 9 * i * o + 3 * o
            i = o
    assert size(vgg(depth)) == expected
    assert sum(VGGS[depth]) + 3 == depth  # named after the paper's three linear layers


def macs(net: nn.Module, shape: tuple[int, ...] = (3, 32, 32)) -> int:
    """Multiply-accumulates of convolutions and linear layers for one input."""
    total = 0

    def count(m: nn.Module, args: tuple, out: torch.Tensor) -> None:
        nonlocal total
        per_output = m.weight[0].numel()
        total += out.numel() * per_output

    handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        net.eval()(torch.zeros(1, *shape))
    for h in handles:
        h.remove()
    return total


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 40.8), ("resnet56", 125.8), ("resnet8x4", 177.1), ("resnet32x4", 1083.0)]
)
def test_cost_is_as_published(name: str, millions: float):
    assert macs(PUBLISHED[name][0]()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_resnet_features():
    net = resnet(8, WIDE).eval()
    out = net(torch.randn(2, 3, 32, 32))
    shapes = {role: tuple(f.shape[1:]) for role, f in out.features.items()}
    assert shapes == {
        "stage0": (32, 32, 32),
        "stage1": (64, 32, 32),
        "stage1.preact": (64, 32, 32),
        "stage2": (128, 16, 16),
        "stage2.preact": (128, 16, 16),
        "stage3": (256, 8, 8),
        "stage3.preact": (256, 8, 8),
        "final": (256, 8, 8),
        "pooled": (256,),
    }


# the literature's features at 32 pixels: channels and side of each stage
STAGES = {
    "resnet20": [(16, 32), (16, 32), (32, 16), (64, 8)],
    "wrn_16_2": [(16, 32), (32, 32), (64, 16), (128, 8)],
    "vgg8": [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    "mobilenetv2_half": [(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)],
    "shufflenetv1": [(24, 32), (240, 16), (480, 8), (960, 4)],
    "shufflenetv2": [(24, 32), (116, 16), (232, 8), (464, 4)],
    "resnet50": [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_those_of_the_literature(name: str):
    with torch.no_grad():
        f = PUBLISHED[name][0]()(torch.randn(2, 3, 32, 32)).features
    stages = [tuple(f[f"stage{i}"].shape[1:]) for i in range(len(STAGES[name]))]
    assert stages == [(c, s, s) for c, s in STAGES[name]]
    assert f"stage{len(stages)}" not in f
    for i in range(1, len(stages)):
        assert f[f"stage{i}.preact"].shape == f[f"stage{i}"].shape


def test_wide_resnet_norms_run_once_a_step():
    net = wrn(10, 1)
    net(torch.randn(2, 3, 8, 8))
    assert {m.num_batches_tracked.item() for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {1}


def test_wide_resnet_preactivations_are_the_next_norms_output():
    net = wrn(10, 1).eval()
    for role, norm in net.preact_norms().items():
        nn.init.uniform_(norm.running_mean)
        f = net(torch.randn(2, 3, 8, 8)).features
        assert torch.equal(norm(f[role.removesuffix(".preact")]), f[role])
    assert torch.equal(f["stage3.preact"].relu(), f["final"])


def test_shufflenet_v2_stages_are_their_preactivations_activated_and_shuffled():
    f = shuffle2()(torch.randn(2, 3, 16, 16)).features
    for i in (1, 2, 3):
        pre, out = f[f"stage{i}.preact"], f[f"stage{i}"]
        half = pre.shape[1] // 2
        assert torch.equal(out[:, 0::2], pre[:, :half])  # the half that is not convolved
        assert torch.equal(out[:, 1::2], pre[:, half:].relu())


def test_channel_shuffle_by_hand():
    from kdx.models.cifar.blocks import shuffle

    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(
    "net", [resnet(14), large("bottleneck", 2, 1, 1, 1), vgg(8), shuffle1()], ids=["resnet", "large", "vgg", "shuffle"]
)
@pytest.mark.parametrize("train", [True, False])
def test_preactivations_are_not_overwritten(net: nn.Module, train: bool):
    net.train(train)
    f = net(torch.randn(4, 3, 16, 16)).features
    for role in [r for r in f if r.endswith(".preact")]:
        assert (f[role] < 0).any()
        assert torch.equal(f[role].relu(), f[role.removesuffix(".preact")])


@pytest.mark.parametrize("side", [8, 28, 48, 64])
@pytest.mark.parametrize(
    "make",
    [
        lambda: resnet(8, i=1, c=10),
        lambda: wrn(10, 1, i=1, c=10),
        lambda: vgg(8, i=1, c=10),
        lambda: mobile(i=1, c=10),
        lambda: shuffle1(i=1, c=10),
        lambda: shuffle2(i=1, c=10),
    ],
    ids=["resnet", "wrn", "vgg", "mobile", "shuffle1", "shuffle2"],
)
def test_other_sizes_and_channels(make: Callable[[], nn.Module], side: int):
    assert make()(torch.randn(2, 1, side, side)).logits.shape == (2, 10)


ALL = [
    resnet(14),
    large("basic", 1, 1, 1, 1),
    large("bottleneck", 1, 1, 1, 1),
    wrn(10, 2),
    vgg(8),
    mobile(),
    shuffle1(),
    shuffle2(),
]


@pytest.mark.parametrize("net", ALL, ids=lambda n: type(n).__name__)
def test_gradients_pass_through_the_inputs_twice(net: nn.Module):
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    (g,) = torch.autograd.grad(net.eval()(x).logits.square().sum(), x, create_graph=True)
    g.square().sum().backward()
    assert x.grad.abs().sum() > 0 and net.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("net", ALL, ids=lambda n: type(n).__name__)
def test_head_and_norms(net: nn.Module):
    f = net.eval()(torch.randn(2, 3, 16, 16))
    assert torch.equal(net.head(f.features["pooled"]), f.logits)
    assert torch.allclose(f.features["final"].mean((2, 3)), f.features["pooled"], atol=1e-6)
    for role, norm in net.preact_norms().items():
        assert norm.num_features == f.features[role].shape[1]
        assert any(m is norm for m in net.modules())


@pytest.mark.parametrize("depth", [2, 9, 21])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth: int):
    with pytest.raises(ValueError, match="6n"):
        resnet(depth)


def test_initialisation_is_he_over_fan_out():
    torch.manual_seed(0)
    net = resnet(20, WIDE)
    w = net.layer3[1].conv2.weight
    assert w.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in net.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.skipif("KDX_TEACHERS" not in os.environ, reason="KDX_TEACHERS does not name a folder of checkpoints")
def test_a_real_teacher_loads_strictly():
    from kdx.models.weights import load_weights

    net = resnet(56)
    facts = load_weights(net, Path(os.environ["KDX_TEACHERS"]) / "cifar100_resnet56.safetensors")
    assert facts["arch"] == "resnet56"
    assert net.bn1.num_batches_tracked > 0
