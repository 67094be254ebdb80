import copy

import pytest
import torch
from test_folding import settled
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.losses.base.heads import holder_of
from kdx.models.build import timm_model
from kdx.models.cifar.resnet import ResNet
from kdx.models.teachers.black_box import BlackBoxTeacher
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.optimized import optimize

# tolerance relative to the spread of the exact logits
ALLOWED = {"folded": 1e-5, "bf16": 0.05, "int8": 0.25}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(1)
    net = ResNet(8, [8, 8, 16, 16], 10, 3)
    with torch.no_grad():
        for _ in range(30):
            net(torch.randn(32, 3, 16, 16))
    return net.eval().requires_grad_(False)


def batches() -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randn(32, 3, 16, 16) for _ in range(4)]


@pytest.mark.parametrize("how", ALLOWED)
def test_it_answers_nearly_as_the_network_does(net, how):
    *seen, new = batches()
    fast = Frozen(optimize(net, how, seen), None, None)
    exact, found = Frozen(net, None, None)(new).logits, fast(new).logits
    error = (exact - found).abs().max() / exact.std()
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert 0 < error < ALLOWED[how]
    assert not found.requires_grad and not any(p.requires_grad for p in fast.parameters())


@pytest.mark.parametrize("how", ["folded", "bf16"])
def test_features_keep_their_roles_and_shapes(net, how):
    x = batches()[0]
    exact, fast = net(x), optimize(net, how, [x])(x)
    assert exact.features.keys() == fast.features.keys()
    for role, feature in exact.features.items():
        assert fast.features[role].dtype == torch.float32
        assert (fast.features[role] - feature).norm() <= ALLOWED[how] * feature.norm()


def test_integers_have_logits_alone(net):
    assert not optimize(net, "int8", batches())(batches()[0]).features


@pytest.mark.parametrize("how", ALLOWED)
def test_the_network_stays_and_is_what_methods_ask(net, how):
    before = copy.deepcopy(net.state_dict())
    engine = torch.backends.quantized.engine
    teacher = Frozen(optimize(net, how, batches()), None, None)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert teacher.head is net.fc
    assert holder_of(teacher, "preact_norms").preact_norms().keys() == net.preact_norms().keys()
    assert torch.backends.quantized.engine == engine


@pytest.mark.parametrize("how", ["exact", *ALLOWED])
def test_a_teacher_computes_in_its_own_precision_under_autocast(net, how):
    x = batches()[0]
    teacher = Frozen(net if how == "exact" else optimize(net, how, batches()), None, None)
    outside = teacher(x).logits
    with torch.autocast("cpu", torch.bfloat16):
        inside = teacher(x).logits
    assert torch.equal(outside, inside)


def test_networks_of_other_libraries_are_quantised_without_their_hooks():
    torch.manual_seed(0)
    other = settled(timm_model("resnet10t", False, 5, 3, 0.0, 0.0, None, {})).float()
    x = torch.randn(4, 3, 64, 64)
    fast = optimize(other, "int8", [x])
    assert fast(x).logits.shape == (4, 5)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Outputs:
        return Outputs(x.flatten(1) if x.sum() > 0 else -x.flatten(1))


def test_what_cannot_be_traced_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="teacher.optimize=int8 cannot quantise a Branching"):
        optimize(Branching(), "int8", [torch.ones(2, 3)])


class Featured(nn.Module):
    def forward(self, x: Tensor) -> Outputs:
        return Outputs(x.mean((2, 3)), {"map": x, "pooled": x.mean((2, 3))})


def test_a_limited_teacher_shows_what_it_should_and_hides_its_derivatives(net):
    frozen = Frozen(net, None, None)
    x = batches()[0]
    limited = BlackBoxTeacher(frozen, ["pooled"])
    found = limited(x)
    assert torch.equal(found.logits, frozen(x).logits) and list(found.features) == ["pooled"]
    assert holder_of(limited, "through_inputs") is None and holder_of(frozen, "through_inputs") is frozen
    assert limited.head is net.fc and limited.preact_norms().keys() == net.preact_norms().keys()
    assert not BlackBoxTeacher(frozen, [])(x).features
    with pytest.raises(ValueError, match=r"keeps vectors such as pooled, but 'map' has shape \[3, 16, 16\]"):
        BlackBoxTeacher(Featured(), ["map"])(x)
    with pytest.raises(ValueError, match="no feature with role 'nowhere'"):
        BlackBoxTeacher(Featured(), ["nowhere"])(x)
