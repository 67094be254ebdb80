"""Squared, absolute and Huber error: their minima, their limits, what is refused."""

import pytest
import torch
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Linear, Progress
from kdx.losses.logits.logit_mse import logit_mse
from kdx.losses.logits.regression import Huber, absolute_error, huber, squared_error


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return 3 * torch.randn(*shape, dtype=torch.float64), torch.randn(*shape, dtype=torch.float64)


def test_they_equal_the_library():
    z, y = pair(8, 3)
    torch.testing.assert_close(squared_error(z, y).mean(), F.mse_loss(z, y))
    torch.testing.assert_close(absolute_error(z, y).mean(), F.l1_loss(z, y))
    torch.testing.assert_close(huber(z, y, 0.7).mean(), F.huber_loss(z, y, delta=0.7))
    torch.testing.assert_close(huber(z, y, 0.7).mean() / 0.7, F.smooth_l1_loss(z, y, beta=0.7))


def test_values_of_a_teacher_are_regressed_as_targets_are():
    z, v = pair(8, 3)
    torch.testing.assert_close(logit_mse(z, v, "mean"), squared_error(z, v))


def test_huber_lies_between_its_two_limits():
    z, y = pair(8, 3)
    torch.testing.assert_close(huber(z, y, 1e3), squared_error(z, y) / 2)
    torch.testing.assert_close(huber(z, y, 1e-6) / 1e-6, absolute_error(z, y), rtol=1e-5, atol=1e-5)


def test_a_constant_that_is_trained_finds_the_mean_and_the_median():
    y = torch.randn(101, 1).double().exp()
    for loss, expected in ((squared_error, y.mean()), (absolute_error, y.median())):
        z = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe")

        def closure(z=z, loss=loss, optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(z.expand(101, 1), y).mean()
            value.backward()
            return value

        optimizer.step(closure)
        torch.testing.assert_close(z.detach().squeeze(), expected, rtol=0, atol=0.02)


def test_the_gradient_of_huber_is_clipped():
    z, y = pair(20, 4)
    (gradient,) = torch.autograd.grad(huber(z.requires_grad_(), y, 0.5).sum(), z)
    torch.testing.assert_close(gradient, (z - y).detach().clamp(-0.5, 0.5) / 4)


def test_shapes_that_would_broadcast_are_refused():
    for loss in (squared_error, absolute_error, lambda z, y: huber(z, y, 1.0)):
        with pytest.raises(ValueError, match=r"outputs \[B, K\] with values \[B, K\], got \[4, 1\] and \[4\]"):
            loss(torch.zeros(4, 1), torch.zeros(4))


def test_a_delta_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="delta of the Huber loss must be above 0, got 0"):
        huber(torch.zeros(1, 1), torch.zeros(1, 1), 0)


def test_delta_follows_a_schedule():
    z, y = (t.float() for t in pair(5, 1))
    batch = Batch(torch.zeros(5, 1), {"values": y}, torch.arange(5))
    term, progress = Huber(Linear(2.0, 0.5, 1.0)), Progress(step=5, steps=10, epochs=1)
    torch.testing.assert_close(term(Outputs(z), Outputs(z), batch, progress), huber(z, y, 1.25))
