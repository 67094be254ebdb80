"""The other divergences: their bounds, their symmetry, their limits."""

import math

import pytest
import torch

from kdx.losses.logits.divergences import jensen_shannon, reverse_divergence, symmetric_divergence, total_variation
from kdx.losses.logits.kd import kl_divergence

ALL = [reverse_divergence, symmetric_divergence, jensen_shannon, total_variation]
SYMMETRIC = [symmetric_divergence, jensen_shannon, total_variation]


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(8, 10).double(), 3 * torch.randn(8, 10).double()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_reverse_is_the_plain_one_with_the_sides_changed(logits, temperature: float):
    z, v = logits
    forward = kl_divergence(v, z, temperature, "batchmean")
    torch.testing.assert_close(reverse_divergence(z, v, temperature), forward)
    both = (forward + kl_divergence(z, v, temperature, "batchmean")) / 2
    torch.testing.assert_close(symmetric_divergence(z, v, temperature), both)


@pytest.mark.parametrize("loss", SYMMETRIC)
def test_the_sides_may_be_changed(logits, loss):
    z, v = logits
    torch.testing.assert_close(loss(z, v, 2.0), loss(v, z, 2.0))


@pytest.mark.parametrize("loss", ALL)
def test_a_shift_changes_nothing_and_nothing_is_negative(logits, loss):
    z, v = logits
    rows = loss(z, v, 2.0)
    assert (rows > 0).all()
    torch.testing.assert_close(loss(z + 7, v - 90, 2.0), rows)


def test_opposite_certainties_reach_the_bounds():
    z, v = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    for temperature in (1.0, 4.0):
        assert jensen_shannon(z, v, temperature).item() == pytest.approx(temperature**2 * math.log(2))
        assert total_variation(z, v, temperature).item() == pytest.approx(temperature)
        for loss in (reverse_divergence, symmetric_divergence):
            assert loss(z, v, temperature).item() == pytest.approx(2e4 * temperature)


def test_near_the_teacher_all_are_the_plain_divergence_up_to_a_factor(logits):
    _, v = logits
    z = v + 1e-3 * torch.randn_like(v)
    plain = kl_divergence(z, v, 2.0, "batchmean")
    for loss, factor in ((reverse_divergence, 1.0), (symmetric_divergence, 1.0), (jensen_shannon, 0.25)):
        torch.testing.assert_close(loss(z, v, 2.0), factor * plain, rtol=1e-2, atol=0)


def test_total_variation_keeps_its_size_at_high_temperatures(logits):
    z, v = (x - x.mean(1, keepdim=True) for x in logits)
    limit = (z - v).abs().sum(1) / 20
    torch.testing.assert_close(total_variation(z, v, 1e5), limit, rtol=1e-3, atol=0)


def test_pinsker(logits):
    z, v = logits
    plain, tv = kl_divergence(z, v, 1.0, "batchmean"), total_variation(z, v, 1.0)
    assert (tv <= (plain / 2).sqrt()).all()
    # and the divergence that forgives: what the student leaves out costs less than what it makes up
    mode = torch.tensor([[0.0, -20.0]]).double()
    mixed = torch.zeros(1, 2).double()
    assert reverse_divergence(mode, mixed, 1.0).item() == pytest.approx(math.log(2), rel=1e-6)
    assert kl_divergence(mode, mixed, 1.0, "batchmean").item() > 9
