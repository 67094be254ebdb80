"""The corners that losses share."""

import torch

from kdx.core.functional import divergence, unit
from kdx.losses.base.numerics import full_precision


def test_a_zero_vector_stays_zero_without_a_gradient():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    out = unit(x, 1)
    torch.testing.assert_close(out, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient[1].tolist() == [0.0, 0.0]
    torch.testing.assert_close(gradient[0], torch.tensor([0.8, -0.6]) * (0.2 / 5))


def test_tiny_vectors_are_scaled_too():
    torch.testing.assert_close(unit(torch.tensor([[3e-15, 4e-15]]), 1), torch.tensor([[0.6, 0.8]]))


def test_zero_times_log_zero_is_zero():
    log_p = torch.tensor([[0.0, -torch.inf]])
    assert divergence(log_p, log_p).tolist() == [0.0]


def test_half_precision_is_computed_in_full():
    @full_precision
    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b

    a = torch.randn(8, 8)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(product(a.to(dtype), b=a.to(dtype)), a.to(dtype).float() @ a.to(dtype).float())
    assert product(a.double(), a.double()).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        result = product(a, a)
    assert torch.equal(result, a @ a)
