"""Mutual divergences against loops in double precision, and who is moved by whom."""

import math

import pytest
import torch

from kdx.losses.logits.kd import kl_divergence
from kdx.losses.online.dml import mutual_divergence
from kdx.losses.online.peer_term import taught_divergence


def logits(networks: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(3 * torch.randn(4, 5, generator=generator, dtype=torch.float64)).requires_grad_() for _ in range(networks)]


def soft(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in row]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("networks", [2, 3, 4])
def test_it_is_the_sum_over_the_others(networks: int, average: bool):
    members = logits(networks)
    for i in range(networks):
        found = mutual_divergence(members, i, 1.5, average, detach_peers=True)
        for row in range(4):
            q = soft(members[i][row].tolist(), 1.5)
            expected = 0.0
            for j in range(networks):
                if j != i:
                    p = soft(members[j][row].tolist(), 1.5)
                    expected += 1.5**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            assert found[row].item() == pytest.approx(expected / (networks - 1 if average else 1), rel=1e-12)


@pytest.mark.parametrize("detach", [True, False])
def test_the_others_move_only_where_they_are_not_constants(detach: bool):
    members = logits(3)
    mutual_divergence(members, 1, 1.0, True, detach).sum().backward()
    assert members[1].grad is not None and members[1].grad.abs().sum() > 0
    for i in (0, 2):
        assert (members[i].grad is None) == detach


def test_without_constants_the_gradient_is_that_of_the_value():
    members = tuple(logits(2))
    assert torch.autograd.gradcheck(lambda a, b: mutual_divergence([a, b], 0, 2.0, True, False), members)
    assert torch.autograd.gradcheck(lambda a, b: taught_divergence(a, b, 2.0), members)


def test_a_target_that_is_constant_teaches_as_a_teacher_does():
    a, b = logits(2)
    ours, theirs = taught_divergence(a, b.detach(), 3.0), kl_divergence(a, b, 3.0, "batchmean")
    assert torch.allclose(ours, theirs, rtol=1e-14)
    (g,), (h,) = (torch.autograd.grad(x.sum(), a) for x in (ours, theirs))
    assert torch.allclose(g, h, rtol=1e-12)


def test_networks_that_agree_have_nothing_to_learn():
    (a,) = logits(1)
    value = mutual_divergence([a, a.detach().clone(), a.detach().clone()], 0, 1.0, False, True)
    (gradient,) = torch.autograd.grad(value.sum(), a)
    assert value.abs().max() < 1e-14 and gradient.abs().max() < 1e-14


def test_half_precision_is_computed_in_full():
    members = [x.detach().bfloat16() for x in logits(2)]
    found = mutual_divergence(members, 0, 1.0, True, True)
    assert found.dtype == torch.float32
    assert torch.allclose(found, mutual_divergence([m.float() for m in members], 0, 1.0, True, True))
