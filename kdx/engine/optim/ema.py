"""Exponential moving average of a network's weights."""

import copy

import torch
from torch import Tensor, nn


class Ema:
    """A copy of a network whose parameters are exponential moving averages; buffers are plain copies.

    Args:
        model: The network in training.
        decay: Weight of the old average in each step; `average = decay * average + (1 - decay) * parameter`.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.source, self.decay = model, decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        ours: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(self.source.parameters())
        torch._foreach_lerp_(ours, theirs, weight=1 - self.decay)
        for mine, other in zip(self.model.buffers(), self.source.buffers(), strict=True):
            mine.copy_(other)

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict(state)
