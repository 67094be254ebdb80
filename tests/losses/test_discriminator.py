"""The two sides of the discriminator's verdict."""

import math

import pytest
import torch

from kdx.losses.online.discriminator import Discriminator, deception, discrimination


def test_losses_are_those_of_probabilities():
    real, fake = torch.randn(2, 5, dtype=torch.float64).unbind()
    for r, f, d, s in zip(real, fake, discrimination(real, fake), deception(fake), strict=True):
        p, q = (1 / (1 + math.exp(-x.item())) for x in (r, f))
        assert d.item() == pytest.approx(-math.log(p) - math.log(1 - q), rel=1e-10)
        assert s.item() == pytest.approx(-math.log(q), rel=1e-10)


def test_certainty_is_finite_and_being_found_out_has_the_full_gradient():
    odds = torch.tensor([-1e4, 0.0, 1e4], requires_grad=True)
    assert discrimination(-odds.detach(), odds.detach()).isfinite().all()
    deception(odds).sum().backward()
    assert odds.grad.tolist() == pytest.approx([-1.0, -0.5, 0.0])


def test_it_sees_neither_the_size_nor_the_offset_of_a_row():
    torch.manual_seed(0)
    judge, rows = Discriminator(6, [8, 4]).double(), torch.randn(5, 6, dtype=torch.float64)
    assert torch.allclose(judge(rows), judge(50 * rows + 7), atol=1e-4)
    assert judge(rows).shape == (5,)
    assert [layer.out_features for layer in judge.layers if isinstance(layer, torch.nn.Linear)] == [8, 4, 1]
