"""A discriminator between teacher and student, and the two sides' losses."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from kdx.losses.base.numerics import full_precision


class Discriminator(nn.Module):
    """A multilayer perceptron with LeakyReLU 0.2; a positive output means "teacher".

    It normalises rows first, so that their size and offset alone do not decide.

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
        """Log-odds [B] that rows [B, ...] are the teacher's."""
        return self.layers(rows.flatten(1)).squeeze(1)


@full_precision
def discrimination(teacher_odds: Tensor, student_odds: Tensor) -> Tensor:
    """The discriminator's loss, `-log D(teacher) - log(1 - D(student))`; log-odds [B] to [B].

    Example:
        >>> zero = torch.zeros(1)
        >>> torch.allclose(discrimination(zero, zero), 2 * torch.tensor([2.0]).log())  # at chance: 2 log 2
        True
    """
    return F.softplus(-teacher_odds) + F.softplus(student_odds)


@full_precision
def deception(student_odds: Tensor) -> Tensor:
    """The student's loss, `-log D(student)`, log-odds [B] to [B].

    Its gradient does not vanish where the discriminator is right.

    References:
        Goodfellow et al., "Generative Adversarial Networks", 2014. https://arxiv.org/abs/1406.2661

    Example:
        >>> deception(torch.tensor([0.0, -100.0]))  # log 2 at chance
        tensor([  0.6931, 100.0000])
    """
    return F.softplus(-student_odds)
