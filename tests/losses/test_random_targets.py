"""Random soft targets around the label."""

import math

import torch

from kdx.losses.logits.random_targets import random_target_cross_entropy


def test_the_targets_have_the_labels_mean_and_the_noise_of_their_temperature():
    labels = torch.tensor([1]).expand(20_000)
    # a student whose log-probabilities differ by d in one class shifts the loss by the target there times -d
    base = torch.zeros(20_000, 3, dtype=torch.float64)
    tilted = base.clone()
    tilted[:, 1] = 1.0
    shift = (tilted.log_softmax(1) - base.log_softmax(1))[0]
    torch.manual_seed(0)
    one = random_target_cross_entropy(base, labels, 0.2, 0.5)
    torch.manual_seed(0)
    other = random_target_cross_entropy(tilted, labels, 0.2, 0.5)
    # the same draws: -(other - one) = p_1 (shift_1 - shift_0) + shift_0
    target = (-(other - one) - shift[0]) / (shift[1] - shift[0])
    g = torch.Generator().manual_seed(1)
    noise = 0.2 * torch.randn(200_000, 3, generator=g, dtype=torch.float64)
    wanted = ((torch.tensor([0.0, 1.0, 0.0]) + noise) / 0.5).softmax(1)[:, 1]
    assert math.isclose(float(target.mean()), float(wanted.mean()), abs_tol=3e-3)
    assert math.isclose(float(target.std()), float(wanted.std()), rel_tol=0.03)


def test_each_call_draws_anew_and_no_noise_draws_nothing():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    assert not torch.equal(*(random_target_cross_entropy(logits, labels, 0.2, 0.15) for _ in range(2)))
    state = torch.get_rng_state()
    assert torch.equal(*(random_target_cross_entropy(logits, labels, 0.0, 0.15) for _ in range(2)))
    assert torch.equal(torch.get_rng_state(), state)
