"""Functions with closed forms, as networks without parameters: teachers of regressions."""

import torch
from torch import Tensor, nn

from kdx.core.types import Outputs


class StyblinskiTang(nn.Module):
    """`f(x) = sum_i (x_i^4 - 16 x_i^2 + 5 x_i) / 2`: many valleys, and a slope that no few values tell.

    References:
        Czarnecki, Osindero, Jaderberg, Swirszcz, Pascanu, "Sobolev Training for Neural Networks", 2017, fit it.
        https://arxiv.org/abs/1706.04859
    """

    coefficients: Tensor  # of x, x^2, x^3 and x^4

    def __init__(self):
        super().__init__()
        self.register_buffer("coefficients", torch.tensor([2.5, -8.0, 0.0, 0.5]))

    def forward(self, x: Tensor) -> Outputs:
        """[B, ...] to logits [B, 1]."""
        x = x.flatten(1)
        a, b, c, d = self.coefficients
        return Outputs((x * (a + x * (b + x * (c + x * d)))).sum(1, keepdim=True))
