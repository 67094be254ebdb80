"""A classifier that tells teacher from student by what they put out, and what the two make of its verdict."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from kdx.losses.base.numerics import full_precision


class Discriminator(nn.Module):
    """A multilayer perceptron with LeakyReLU 0.2; above 0 it takes a row for the teacher's.

    Rows are normalised first, so that it cannot go by their size and offset alone.

    Args:
        inputs: Width of a row.
        hidden: Width of each hidden layer.
    """

    def __init__(self, inputs: int, hidden: list[int]):
        super().__init__()
        layers: list[nn.Module] = [nn.LayerNorm(inputs, elementwise_affine=False)]
        for width, out in pairwise([inputs, *hidden]):
            layers += [nn.Linear(width, out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear([inputs, *hidden][-1], 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Log-odds [B] of rows [B, ...] being the teacher's."""
        return self.layers(rows.flatten(1)).squeeze(1)


@full_precision
def discrimination(teacher_odds: Tensor, student_odds: Tensor) -> Tensor:
    """The discriminator's loss, `-log D(teacher) - log(1 - D(student))`; log-odds [B] to [B]."""
    return F.softplus(-teacher_odds) + F.softplus(student_odds)


@full_precision
def deception(student_odds: Tensor) -> Tensor:
    """The student's loss, `-log D(student)`, whose gradient stays where it is found out; log-odds [B] to [B].

    References:
        Goodfellow et al., "Generative Adversarial Networks", 2014. https://arxiv.org/abs/1406.2661
    """
    return F.softplus(-student_odds)
