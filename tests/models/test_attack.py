"""Attacks against networks with a known solution, and against a plain loop."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kdx.models.attack import PGD, BoundaryAttack
from kdx.models.norms import evaluating
from kdx.models.small import MLP, SmallCNN

MEAN, STD = [0.3, 0.5], [0.2, 0.4]


def boundary(**changes: Any) -> BoundaryAttack:
    return BoundaryAttack(**{"steps": 10, "step_size": 0.3, "margin": 1e-4, "low": -2.5, "high": 2.5} | changes)


def smooth() -> MLP:
    torch.manual_seed(0)
    return MLP([9], 0.0, "tanh", 4, (2, 2, 2)).double()


def test_boundary_steps_are_those_of_the_equation():
    net, inputs = smooth(), torch.randn(6, 2, 2, 2).double()
    with torch.no_grad():
        base = net(inputs).logits.argmax(1)
    targets = (base + torch.tensor([1, 2, 3, 1, 2, 3])) % 4
    found = boundary()(lambda x: net(x).logits, inputs, targets)
    for i in range(6):
        x = inputs[i : i + 1].clone()
        for _ in range(10):
            x.requires_grad_()
            z = net(x).logits[0]
            if int(z.argmax()) != int(base[i]):
                break
            gap = z[base[i]] - z[targets[i]]
            (g,) = torch.autograd.grad(-gap, x)
            x = (x + 0.3 * (gap + 1e-4) * g / g.norm()).clamp(-2.5, 2.5).detach()
        torch.testing.assert_close(found[i], x[0].detach(), rtol=1e-6, atol=1e-7)
    assert not found.requires_grad


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_two_linear_classes_are_parted_by_a_plane(offset: float):
    torch.manual_seed(1)
    w = torch.randn(2, 5).double()
    inputs = torch.randn(20, 5).double() / 4

    def net(x: Tensor) -> Tensor:
        return x @ w.T + torch.tensor([0.0, offset]).double()

    z = net(inputs)
    base = z.argmax(1)
    normal = w[1] - w[0]
    gap = (z[:, 1] - z[:, 0]).abs()
    found = boundary(steps=400, step_size=0.1 / normal.norm().item(), margin=1e-3, low=-100.0, high=100.0)(
        net, inputs, 1 - base
    )
    assert (net(found).argmax(1) != base).all()
    moved = found - inputs
    expected = gap / normal.norm()
    torch.testing.assert_close(moved.norm(dim=1), expected, rtol=0, atol=2e-3 / normal.norm().item())
    cosine = (moved @ normal) / (moved.norm(dim=1) * normal.norm())
    torch.testing.assert_close(cosine, (1.0 - 2 * base).double(), rtol=1e-9, atol=1e-9)


def test_boundary_samples_stay_in_range_and_a_flat_network_moves_nothing():
    net, inputs = smooth(), torch.randn(6, 2, 2, 2).double()
    targets = (net(inputs).logits.argmax(1) + 1) % 4
    found = boundary(step_size=50.0, low=-0.5, high=0.75)(lambda x: net(x).logits, inputs, targets)
    assert found.min() >= -0.5 and found.max() <= 0.75
    flat = boundary(low=-9.0, high=9.0)(
        lambda x: 0 * x.flatten(1)[:, :3] + torch.tensor([1.0, 0, 0]), inputs, torch.ones(6).long()
    )
    assert torch.equal(flat, inputs)


def test_it_works_where_no_gradients_are_wanted_and_leaves_none():
    net, inputs = smooth(), torch.randn(3, 2, 2, 2).double()
    targets = (net(inputs).logits.argmax(1) + 1) % 4
    expected = boundary()(lambda x: net(x).logits, inputs, targets)
    with torch.no_grad():
        assert torch.equal(boundary()(lambda x: net(x).logits, inputs, targets), expected)
        PGD(radius=0.1, step_size=0.1, steps=2, start="centre")(
            lambda x: net(x).logits, lambda z: z[:, 0], inputs, MEAN, STD
        )
    assert all(p.grad is None for p in net.parameters()) and not inputs.requires_grad


def pixels(x: Tensor) -> Tensor:
    shape = (1, 2, 1, 1)
    return x * torch.tensor(STD).view(shape) + torch.tensor(MEAN).view(shape)


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("start", ["centre", "uniform", "gaussian"])
def test_a_linear_objective_is_raised_to_the_corner_of_the_ball(steps: int, start: Any):
    torch.manual_seed(0)
    shape = (1, 2, 1, 1)
    image = torch.rand(5, 2, 3, 3)
    inputs = (image - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    w = torch.randn(2, 3, 3)
    radius = 0.1
    # with these steps the corner is reachable from any point of the ball
    attack = PGD(radius=radius, step_size=2 * radius / steps + 1e-6, steps=steps, start=start)
    found = attack(lambda x: (x * w).flatten(1).sum(1, keepdim=True), lambda z: z[:, 0], inputs, MEAN, STD)
    expected = (image + radius * w.sign()).clamp(0, 1)
    torch.testing.assert_close(pixels(found), expected, rtol=0, atol=1e-5)


def test_one_short_step_is_one_step_and_no_radius_no_step():
    image = torch.full((2, 2, 3, 3), 0.5)
    shape = (1, 2, 1, 1)
    inputs = (image - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    w = torch.randn(2, 3, 3)

    def net(x: Tensor) -> Tensor:
        return (x * w).flatten(1).sum(1, keepdim=True)

    found = PGD(radius=0.1, step_size=0.02, steps=3, start="centre")(net, lambda z: z[:, 0], inputs, MEAN, STD)
    torch.testing.assert_close(pixels(found), image + 0.06 * w.sign(), rtol=0, atol=1e-6)
    still = PGD(radius=0.0, step_size=0.02, steps=3, start="uniform")(net, lambda z: z[:, 0], inputs, MEAN, STD)
    torch.testing.assert_close(still, inputs)


def test_starts_differ_by_their_spread():
    torch.manual_seed(0)
    inputs = torch.zeros(50, 2, 8, 8)  # pixels of 0.3 and 0.5
    seen = {}
    for start in ("centre", "uniform", "gaussian"):
        attack = PGD(radius=0.1, step_size=0.0, steps=1, start=start)
        seen[start] = (
            pixels(attack(lambda x: x.flatten(1), lambda z: z[:, 0], inputs, MEAN, STD)) - pixels(inputs)
        ).std()
    assert seen["centre"] == 0
    assert seen["uniform"].item() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert seen["gaussian"].item() == pytest.approx(0.001, rel=0.05)


def test_evaluating_puts_each_mode_back():
    net = SmallCNN([3], 4, 0.5, 3, (1, 4, 4)).train()
    net.convs.eval()
    before = [m.training for m in net.modules()]
    with pytest.raises(KeyError), evaluating(net):
        assert not any(m.training for m in net.modules())
        raise KeyError
    assert [m.training for m in net.modules()] == before and any(before) and not all(before)
