"""Sobolev training of a regression: a function is its own teacher, and knows its gradient."""

import pytest
import torch
from torch import nn

from kdx.config.compose import compose
from kdx.core.batch import Batch
from kdx.core.schedule import Progress
from kdx.core.weigh import weigh
from kdx.models.derivatives import jacobian
from kdx.models.small import MLP
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.functions import StyblinskiTang
from kdx.runs.build import make
from kdx.tasks.classes import image_classes

SPEC = image_classes(1, (2,), 100, (0.0,), (1.0,))


def errors(net: nn.Module) -> tuple[float, float]:
    """Root mean squares over a grid of points: of the value's error, and of the length of the gradient's."""
    side = torch.linspace(-5, 5, 41)
    x = torch.cartesian_prod(side, side).requires_grad_()
    values = net(x).logits
    expected = 2 * x**3 - 16 * x + 2.5
    wrong = values - StyblinskiTang()(x).logits
    gradient = jacobian(values, x, False)[:, 0] - expected
    return wrong.square().mean().sqrt().item(), gradient.square().sum(1).mean().sqrt().item()


def fitted(size: int, seed: int, weight: float, steps: int) -> tuple[float, float]:
    torch.manual_seed(seed)
    x = 10 * torch.rand(size, 2) - 5
    node = {**compose(["method=sobolev_mse"]).config["method"], "weights": {"mse": 1.0, "jacobian": weight}}
    student = MLP([256, 256], 0.0, "relu", 1, (2,))
    method = make(node, student=student, teacher=Frozen(StyblinskiTang(), None, None), spec=SPEC)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    index = torch.arange(size)
    batch = Batch.of_classes(x, torch.zeros_like(index), index)
    for step in range(steps):
        progress = Progress(step, steps, 1)
        optimizer.zero_grad()
        weigh(method(batch, progress).terms, method.weights, progress).backward()
        optimizer.step()
    return errors(student)


def test_the_function_is_the_papers_and_so_is_its_gradient():
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]]).requires_grad_()
    torch.testing.assert_close(StyblinskiTang()(x).logits, (x**4 - 16 * x**2 + 5 * x).sum(1, keepdim=True) / 2)
    found = jacobian(StyblinskiTang()(x).logits, x, False)[:, 0]
    torch.testing.assert_close(found, (2 * x**3 - 16 * x + 2.5).detach())


@pytest.mark.slow
@pytest.mark.parametrize("size", [20, 100])
def test_the_set_up_of_the_paper_gains_in_value_and_in_gradient(size: int):
    """MLP 2-256-256-1, full-batch Adam: with the function's gradients both errors fall, for each seed."""
    for seed in range(2):
        plain, sobolev = fitted(size, seed, 0.0, 1500), fitted(size, seed, 1.0, 1500)
        assert sobolev[0] < plain[0]
        assert sobolev[1] < 0.85 * plain[1]
