"""Regression of logits."""

import pytest
import torch

from kdx.losses.logits.logit_mse import logit_mse


def test_gradient_is_the_difference():
    torch.manual_seed(0)
    z, v = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6)
    (gradient,) = torch.autograd.grad(logit_mse(z, v, "half_sum").sum(), z)
    torch.testing.assert_close(gradient, (z - v).detach())


def test_the_mean_is_twice_the_half_sum_over_classes():
    z, v = torch.randn(4, 6), torch.randn(4, 6)
    torch.testing.assert_close(logit_mse(z, v, "mean"), 2 / 6 * logit_mse(z, v, "half_sum"))


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match="'half_sum' or 'mean', got 'batchmean'"):
        logit_mse(torch.zeros(1, 2), torch.zeros(1, 2), "batchmean")
