import pytest
import torch
from feature_references import hcl
from law_case import CLASSES, SPEC
from torch import nn

from kdx.core.outputs import Shapes
from kdx.losses.base.adapters import Norm, folded
from kdx.losses.base.upsample import convolve_enlarged
from kdx.losses.features import reviewkd
from kdx.losses.features.reviewkd import ReviewKD, _Fusion, hierarchical_distance


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (2, 2), (1, 1), (16, 8)])
def test_distance_equals_the_loop(size: tuple[int, int]):
    mine, theirs = torch.randn(2, 3, *size).double(), torch.randn(2, 3, *size).double()
    expected = [hcl(a, b) for a, b in zip(mine, theirs, strict=True)]
    assert hierarchical_distance(mine, theirs).tolist() == pytest.approx(expected, rel=1e-9)


def test_uneven_sizes_are_pooled_from_the_map_itself():
    mine, theirs = torch.randn(2, 3, 7, 7).double(), torch.randn(2, 3, 7, 7).double()
    total, weights = (mine - theirs).square().mean((1, 2, 3)), [1.0]
    for side in (4, 2, 1):
        a, b = (nn.functional.adaptive_avg_pool2d(x, side) for x in (mine, theirs))
        weights.append(weights[-1] / 2)
        total = total + weights[-1] * (a - b).square().mean((1, 2, 3))
    torch.testing.assert_close(hierarchical_distance(mine, theirs), total / sum(weights))


def test_a_constant_difference_has_the_same_distance_at_every_level():
    theirs = torch.randn(2, 3, 8, 8).double()
    torch.testing.assert_close(hierarchical_distance(theirs + 0.5, theirs), torch.full((2,), 0.25).double())


@pytest.mark.parametrize("training", [True, False])
def test_folded_layers_are_the_layers(training: bool):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 1, bias=False).double(), Norm(5).double()
    norm.weight.data.uniform_(-1, 2)
    norm.bias.data.normal_()
    norm.running_mean.normal_()
    other = Norm(5).double()
    other.load_state_dict(norm.state_dict())
    norm.train(training), other.train(training)
    maps = (2 + torch.randn(4, 3, 6, 6).double()).to(memory_format=torch.channels_last).requires_grad_()
    expected = norm(conv(maps))
    weight, bias = folded(maps, conv, other)
    found = nn.functional.conv2d(maps, weight[..., None, None], bias)
    torch.testing.assert_close(found, expected)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)
    drawn = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((out * drawn).sum(), [maps, conv.weight, *layer.parameters()])
        for out, layer in ((expected, norm), (found, other))
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("outputs", [2, 5])
def test_fusion_is_the_plain_formula_in_training(last: bool, outputs: int, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    split = []
    monkeypatch.setattr(reviewkd, "convolve_enlarged", lambda *of: split.append(0) or convolve_enlarged(*of))
    fusion = _Fusion(3, 16, outputs, fuse=True, last=last).double()
    x, deeper = torch.randn(4, 3, 4, 4).double(), torch.randn(4, 16, 2, 2).double()
    plain = _Fusion(3, 16, outputs, fuse=True, last=False).double()
    plain.load_state_dict(fusion.state_dict())
    predicted, mixture = fusion(x, deeper, (4, 4))
    assert (mixture is None) == last == bool(split)
    reduced, large = plain.reduce(x), nn.functional.interpolate(deeper, (4, 4), mode="nearest")
    assert plain.attention is not None
    shares = plain.attention(torch.cat([reduced, large], 1)).sigmoid()
    expected = reduced * shares[:, :1] + large * shares[:, 1:]
    if mixture is not None:
        torch.testing.assert_close(mixture, expected)
    wanted = plain.predict(expected)
    torch.testing.assert_close(predicted, wanted)
    drawn = torch.randn_like(wanted)
    for out, layer in ((predicted, fusion), (wanted, plain)):
        (out * drawn).sum().backward()
        assert layer.predict[0].weight.grad is not None
    for mine, theirs in zip(fusion.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-9, rtol=1e-7)


def test_all_parts_learn_where_maps_are_of_other_sizes_and_widths():
    student = Shapes((CLASSES,), {"a": (3, 7, 7), "b": (4, 3, 3), "pooled": (6,)})
    teacher = Shapes((CLASSES,), {"a": (5, 8, 8), "b": (8, 4, 4), "pooled": (9,)})
    term = ReviewKD(["a", "b", "pooled"], 512)
    term.build(student, teacher, SPEC)
    from loss_references import random_outputs

    outputs = [random_outputs(4, CLASSES, dict(s.features), torch.float32) for s in (student, teacher)]
    term(*outputs, None, None).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in term.parameters())


def test_refuses_tokens():
    shapes = Shapes((CLASSES,), {"stage1": (65, 192)})
    with pytest.raises(ValueError, match="ReviewKD reads maps"):
        ReviewKD(["stage1"], 512).build(shapes, shapes, SPEC)
