"""CTKD: a temperature that learns to make the task harder, more so as training goes on."""

import torch
from torch import Tensor, nn

from kdx.core.ranges import NonNegative, Positive
from kdx.core.schedule import Progress, Schedule, at


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """`x` itself, bit for bit, whose gradient is multiplied by `-strength` on its way back."""
    held = x.detach()
    return held + strength * (held - x)


class LearnedTemperature(nn.Module, Schedule):
    """One temperature for all examples, learned against the student.

    It goes wherever a term takes a schedule of the temperature, and is trained with the term that holds it:
    `T = least + span * sigmoid(raw)`, where the gradient of `raw` is reversed, so that the optimiser that
    lowers the loss by the student raises it by the temperature.

    Args:
        least: T where the sigmoid is 0.
        span: Highest T less the least.
        raw: Where the learned number begins; 1 is a sigmoid of 0.73.
        reversal: How strongly the gradient is reversed; a number or a schedule that grows from 0, the curriculum.

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
