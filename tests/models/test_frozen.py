import copy

import pytest
import torch
from torch import nn

from kdx.models.cifar.resnet import ResNet
from kdx.models.small import MLP
from kdx.models.teachers.frozen import Frozen

A, B = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)), ((0.1, 0.2, 0.6), (0.5, 0.1, 0.4))


def net() -> ResNet:
    torch.manual_seed(0)
    return ResNet(depth=8, widths=(4, 4, 8, 8), num_classes=5, in_channels=3)


def test_nothing_moves_in_a_training_parent():
    teacher = Frozen(net(), own=A, given=B)
    parent = nn.ModuleList([teacher, nn.Linear(5, 5)])
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    for _ in range(20):
        parent.train()
        teacher(torch.randn(8, 3, 8, 8) * 7 + 3)
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    after = teacher.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_training_the_wrapped_net_directly_is_undone():
    teacher = Frozen(net(), own=None, given=None)
    before = copy.deepcopy(teacher.state_dict())
    teacher.net.train()
    teacher(torch.randn(8, 3, 8, 8))
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_dropout_is_off():
    mlp = MLP(hidden=(50,), dropout=0.9, activation="relu", num_classes=3, input_shape=(4,))
    teacher, x = Frozen(mlp, own=None, given=None).train(), torch.randn(6, 4)
    assert torch.equal(teacher(x).logits, teacher(x).logits)


def test_gradient_through_inputs_only_when_asked():
    teacher = Frozen(net(), own=A, given=B)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    assert not teacher(x).logits.requires_grad
    with teacher.through_inputs():
        logits = teacher(x).logits
    (g,) = torch.autograd.grad(logits.sum(), x)
    assert g.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher(x).logits.requires_grad


def test_gradient_through_inputs_is_the_derivative():
    teacher = Frozen(net().double(), own=A, given=B)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    with teacher.through_inputs():
        assert torch.autograd.gradcheck(lambda x: teacher(x).logits, x, fast_mode=True)


def test_renormalising_equals_normalising_with_its_own_statistics():
    raw = torch.rand(4, 3, 8, 8)

    def normal(x, stats):
        mean, std = (torch.tensor(s).view(3, 1, 1) for s in stats)
        return (x - mean) / std

    plain = net().eval()
    expected = plain(normal(raw, A)).logits
    got = Frozen(plain, own=A, given=B)(normal(raw, B)).logits
    assert torch.allclose(got, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain(normal(raw, B)).logits, expected, atol=1e-2)


@pytest.mark.parametrize(("own", "given"), [(None, None), (A, None), (None, B), (A, A)])
def test_equal_or_unknown_statistics_cost_nothing(own, given):
    teacher, x = Frozen(net(), own=own, given=given), torch.randn(2, 3, 8, 8)
    assert teacher.renormalise(x) is x


def test_half_precision_inputs_keep_their_type():
    teacher = Frozen(net(), own=A, given=B)
    assert teacher.renormalise(torch.randn(2, 3, 8, 8).bfloat16()).dtype == torch.bfloat16


def test_refusals():
    with pytest.raises(ValueError, match="per channel"):
        Frozen(net(), own=A, given=((0.5,), (0.5,)))
    with pytest.raises(ValueError, match="positive"):
        Frozen(net(), own=((0.5,), (0.0,)), given=((0.5,), (0.5,)))


def test_head_is_the_nets():
    teacher = Frozen(net(), own=None, given=None)
    assert teacher.head is teacher.net.fc
