"""Jacobians against finite differences and each other; frozen batch norms."""

import pytest
import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.models.derivatives import jacobian, jacobian_vector, vector_jacobian
from kdx.models.norms import frozen_batch_norms, has_batch_norms
from kdx.models.small import MLP, SmallCNN


def network() -> MLP:
    torch.manual_seed(0)
    return MLP([7, 6], 0.0, "softplus", 3, (1, 2, 2)).double()


def differences(net: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Jacobian [B, K, 1, 2, 2] by central differences."""
    columns = []
    for place in range(4):
        shift = torch.zeros(4).double()
        shift[place] = 1e-6
        with torch.no_grad():
            above, below = (net(inputs + s * shift.view(1, 2, 2)).logits for s in (1, -1))
        columns.append((above - below) / 2e-6)
    return torch.stack(columns, 2).view(len(inputs), -1, 1, 2, 2)


def test_all_three_are_the_jacobian():
    net, inputs = network(), torch.randn(5, 1, 2, 2).double().requires_grad_()
    expected = differences(net, inputs.detach())
    values = net(inputs).logits
    torch.testing.assert_close(jacobian(values, inputs, False), expected, rtol=1e-5, atol=1e-8)
    v = torch.randn(2, 5, 3).double()
    found = vector_jacobian(values, inputs, v, False)
    torch.testing.assert_close(found, torch.einsum("pbk,bkcij->bpcij", v, expected), rtol=1e-5, atol=1e-8)
    u = torch.randn(2, 5, 1, 2, 2).double()
    outputs, found = jacobian_vector(net, inputs.detach(), u)
    torch.testing.assert_close(found, torch.einsum("pbcij,bkcij->bpk", u, expected), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(outputs.logits, values)


def test_forward_mode_leaves_no_tangents_behind():
    net = network()
    outputs, _ = jacobian_vector(net, torch.randn(2, 1, 2, 2).double(), torch.ones(1, 2, 1, 2, 2))
    with torch.autograd.forward_ad.dual_level():
        for tensor in (outputs.logits, *outputs.features.values()):
            assert torch.autograd.forward_ad.unpack_dual(tensor).tangent is None
    assert outputs.logits.requires_grad


def test_forward_mode_is_as_exact_under_autocast():
    torch.manual_seed(0)
    net = SmallCNN([3, 4], 5, 0.0, 3, (1, 8, 8)).eval()
    inputs, u = torch.randn(4, 1, 8, 8), torch.randn(1, 4, 1, 8, 8)
    expected = jacobian_vector(net, inputs, u)[1]
    with torch.autocast("cpu", torch.bfloat16):
        outputs, found = jacobian_vector(net, inputs, u)
    assert torch.equal(found, expected)
    (found.sum() + outputs.logits.sum()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_what_does_not_depend_on_the_input_has_no_derivative():
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> Outputs:
            return Outputs(torch.ones(len(x), 3))

    _, found = jacobian_vector(Constant(), torch.randn(2, 4), torch.ones(1, 2, 4))
    assert torch.equal(found, torch.zeros(2, 1, 3))


def test_frozen_norms_neither_couple_nor_move_and_are_put_back():
    torch.manual_seed(0)
    net = SmallCNN([3], 4, 0.5, 3, (1, 4, 4)).train()
    for p in net.buffers():
        if p.is_floating_point():
            p.data.uniform_(0.5, 1.5)
    norm = net.convs[0][1]  # pyright: ignore[reportIndexIssue]
    norm.eval()
    other = nn.ModuleList([net, SmallCNN([3], 4, 0.5, 3, (1, 4, 4)).train()])
    before = {k: v.clone() for k, v in other.state_dict().items()}
    modes = [m.training for m in other.modules()]
    x = torch.randn(6, 1, 4, 4)
    with frozen_batch_norms(other):
        torch.manual_seed(1)
        whole = other[1](x).features["stage1"]
        torch.testing.assert_close(other[1](x[:2]).features["stage1"], whole[:2])
        assert other[1].training
    assert [m.training for m in other.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())
    assert has_batch_norms(net) and not has_batch_norms(network())


def test_norms_without_statistics_are_refused():
    net = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(UserError, match="without running statistics"), frozen_batch_norms(net):
        pass
