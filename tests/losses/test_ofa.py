"""OFA: soft cross-entropy at exponent 1, the label's share beyond, and heads of the authors' build."""

import pytest
import torch
from torch import nn

from kdx.core.outputs import Shapes
from kdx.losses.logits.kd import soft_cross_entropy
from kdx.losses.logits.ofa import OFAStages, enhanced_cross_entropy, stage_head
from kdx.tasks.classes import image_classes

SPEC = image_classes(10, (3, 32, 32), 1, (0.0,), (1.0,))
STAGES = {"stage1": (16, 32, 32), "stage2": (32, 16, 16), "stage3": (64, 8, 8), "pooled": (64,)}


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 5).double(), torch.randn(6, 5).double(), torch.arange(6) % 5


def test_exponent_1_is_soft_cross_entropy(sample):
    z, v, y = sample
    torch.testing.assert_close(enhanced_cross_entropy(z, v, y, 1.0, 1.0), soft_cross_entropy(z, v, 1.0, "batchmean"))


def test_the_exponent_moves_weight_from_the_rest_to_the_label(sample):
    z, v, y = sample
    p = v.softmax(1)
    targets = []
    for exponent in (1.0, 1.5, 2.0):
        # the gradient of -sum w log q is q sum w - w
        leaf = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(enhanced_cross_entropy(leaf, v, y, exponent, 1.0).sum(), leaf)
        weights = p**exponent
        weights[torch.arange(6), y] = (1 + p[torch.arange(6), y]) ** exponent - 1
        torch.testing.assert_close(gradient, weights.sum(1, keepdim=True) * z.softmax(1) - weights)
        targets.append((weights / weights.sum(1, keepdim=True))[torch.arange(6), y])
    assert (targets[0] < targets[1]).all()
    assert (targets[1] < targets[2]).all()


def test_a_small_doubt_survives_in_single_precision():
    # p_t = exp(-30): (1 + p)^1.5 - 1 is 1.5 p, and 0 if 1 is added first
    v, z, y = torch.tensor([[-30.0, 0.0]]), torch.tensor([[-1e4, 0.0]]), torch.tensor([0])
    expected = 1.5 * torch.tensor(-30.0).exp() * 1e4
    torch.testing.assert_close(enhanced_cross_entropy(z, v, y, 1.5, 1.0), expected[None])


def test_heads_halve_once_for_each_stage_that_follows():
    term = OFAStages({"stage1": 1.0, "last": 1.0}, 1.0)
    term.build(Shapes((10,), STAGES), Shapes((10,), {"pooled": (256,)}), SPEC)
    first, last = term.heads["stage1"], term.heads["last"]
    strides = [m.stride for m in first.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    assert strides == [(2, 2), (2, 2)]
    assert [m.out_channels for m in first.modules() if isinstance(m, nn.Conv2d)][-1] == 256
    assert [type(m) for m in last] == [nn.Conv2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    assert first(torch.randn(2, 16, 32, 32)).shape == last(torch.randn(2, 64, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_one_exponent_puts_a_head_on_each_stage(count: int):
    shapes = {f"stage{i}": (8 * i, 32 >> i, 32 >> i) for i in range(count + 1) if i}
    built = []
    for given in (1.5, {role: 1.5 for role in shapes}):
        torch.manual_seed(0)
        term = OFAStages(given, 1.0)
        term.build(
            Shapes((10,), {"stage0": (4, 32, 32), **shapes, "pooled": (64,)}), Shapes((10,), {"pooled": (64,)}), SPEC
        )
        built.append(term)
    assert list(built[0].heads) == list(shapes)
    mine, theirs = (dict(term.named_parameters()) for term in built)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_channels_double_until_the_last():
    head = stage_head(8, 3, 100, 10)
    outputs = [m.out_channels for m in head.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    assert outputs == [8, 16, 16, 32, 32, 100]


@pytest.mark.parametrize(
    ("exponents", "message"),
    [
        ({}, "at least one stage"),
        ({"pooled": 1.0}, "OFA reads feature maps"),
        ({"stage9": 1.0}, "no feature with role 'stage9'"),
        ({"final": 1.0}, "puts heads on stages"),
    ],
)
def test_what_cannot_have_a_head_is_refused(exponents: dict[str, float], message: str):
    shapes = Shapes((10,), {**STAGES, "final": (64, 8, 8)})
    with pytest.raises(ValueError, match=message):
        OFAStages(exponents, 1.0).build(shapes, shapes, SPEC)
