"""Closed-form functions as networks without parameters: teachers for regression."""

import torch
from torch import Tensor, nn

from kdx.core.outputs import Outputs


class StyblinskiTang(nn.Module):
    """`f(x) = sum_i (x_i^4 - 16 x_i^2 + 5 x_i) / 2`: many local minima, and a slope that few values do not show.

    References:
        Czarnecki, Osindero, Jaderberg, Swirszcz, Pascanu, "Sobolev Training for Neural Networks", 2017, use it.
        https://arxiv.org/abs/1706.04859
    """

    coefficients: Tensor  # of x, x^2, x^3 and x^4

    def __init__(self):
        super().__init__()
        self.register_buffer("coefficients", torch.tensor([2.5, -8.0, 0.0, 0.5]))

    def forward(self, x: Tensor) -> Outputs:
        """Map inputs [B, ...] to outputs [B, 1]."""
        x = x.flatten(1)
        a, b, c, d = self.coefficients
        return Outputs((x * (a + x * (b + x * (c + x * d)))).sum(1, keepdim=True))
