"""The literature's networks: published sizes and costs, closed forms, shapes of the features."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from kdx.models.cifar.resnet import ResNet
from kdx.models.cifar.resnet_large import ResNetLarge

NARROW, WIDE, LARGE = (16, 16, 32, 64), (32, 64, 128, 256), (64, 128, 256, 512)


def resnet(depth: int, widths: tuple[int, ...] = NARROW, c: int = 100, i: int = 3) -> ResNet:
    return ResNet(depth=depth, widths=widths, num_classes=c, in_channels=i)


def large(block: str, *blocks: int, c: int = 100) -> ResNetLarge:
    return ResNetLarge(block=block, blocks=blocks, widths=LARGE, num_classes=c, in_channels=3)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# CIFAR-100, as the literature prints them
PUBLISHED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (lambda: resnet(20), 278_324),
    "resnet32": (lambda: resnet(32), 472_756),
    "resnet56": (lambda: resnet(56), 861_620),
    "resnet110": (lambda: resnet(110), 1_736_564),
    "resnet8x4": (lambda: resnet(8, WIDE), 1_233_540),
    "resnet32x4": (lambda: resnet(32, WIDE), 7_433_860),
    "resnet50": (lambda: large("bottleneck", 3, 4, 6, 3), 23_705_252),
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


@pytest.mark.parametrize("net", [resnet(14), large("bottleneck", 2, 1, 1, 1)], ids=["resnet14", "large"])
@pytest.mark.parametrize("train", [True, False])
def test_preactivations_are_not_overwritten(net: nn.Module, train: bool):
    net.train(train)
    f = net(torch.randn(4, 3, 16, 16)).features
    for role in [r for r in f if r.endswith(".preact")]:
        assert (f[role] < 0).any()
        assert torch.equal(f[role].relu(), f[role.removesuffix(".preact")])


def test_other_sizes_and_channels():
    for side in (8, 28, 64):
        assert resnet(8, i=1, c=10)(torch.randn(2, 1, side, side)).logits.shape == (2, 10)


@pytest.mark.parametrize("net", [resnet(14), large("basic", 1, 1, 1, 1), large("bottleneck", 1, 1, 1, 1)])
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
