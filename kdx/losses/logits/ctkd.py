"""CTKD: a temperature learned by an adversarial gradient, with a curriculum."""

import torch
from torch import Tensor, nn

from kdx.core.ranges import NonNegative, Positive
from kdx.core.schedule import Progress, Schedule, at


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """Return `x` itself, bit for bit, with its gradient multiplied by `-strength`.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> (2 * reversed_gradient(x, 0.5)).backward()
        >>> x.grad
        tensor(-1.)
    """
    held = x.detach()
    return held + strength * (held - x)


class LearnedTemperature(nn.Module, Schedule):
    """One temperature for all examples, learned against the student.

    Any term that accepts a schedule as its temperature accepts it, and trains it as its parameter. The temperature is
    `T = least + span * sigmoid(raw)`. The gradient of `raw` is reversed, so the step that lowers the loss by the
    student raises it by the temperature.

    Args:
        least: T where the sigmoid is 0.
        span: Highest T minus the least.
        raw: Initial value of the learned number; 1 is a sigmoid of 0.73.
        reversal: Strength of the reversed gradient; a number, or a schedule that grows from 0, the curriculum.

    References:
        Li, Li, Yang, Zhao, Song, Luo, Li, Yang, "Curriculum Temperature for Knowledge Distillation", 2023.
        https://arxiv.org/abs/2211.16231
    """

    def __init__(self, least: Positive, span: Positive, raw: float, reversal: NonNegative | Schedule):
        super().__init__()
        self.least, self.span, self.reversal = least, span, reversal
        self.raw = nn.Parameter(torch.tensor(float(raw)))

    def forward(self, progress: Progress) -> Tensor:
        """T as a tensor of one number, with a graph."""
        return self.least + self.span * reversed_gradient(self.raw, at(self.reversal, progress)).sigmoid()
