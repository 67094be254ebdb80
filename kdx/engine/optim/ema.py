"""Exponential moving average of a network."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdx.core.ranges import PartialFraction

WARMUP_POWER = 2 / 3  # of timm's ModelEmaV3
MUCH = 0.1  # share of the initial network in the final average from which the run says so


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """Settings of the moving average.

    Attributes:
        decay: Weight of the old average in each step.
        warmup: Whether early steps have a smaller decay, so that the initial network leaves the average:
            `min(decay, 1 - t^(-2/3))` in step t, counted from 1, as in timm.
    """

    decay: PartialFraction
    warmup: bool

    def at(self, step: int) -> float:
        """Weight of the old average in a step, counted from 1.

        Example:
            >>> Averaging(decay=0.9, warmup=True).at(1), Averaging(decay=0.9, warmup=True).at(1000)
            (0.0, 0.9)
        """
        return min(self.decay, 1 - step**-WARMUP_POWER) if self.warmup else self.decay

    def remarks(self, steps: int) -> Iterator[str]:
        """A line if the initial network keeps a large share of the average after `steps` steps."""
        if self.warmup or (left := self.decay**steps) <= MUCH:
            return
        yield (
            f"trainer.ema: after {steps} steps of decay {self.decay:g}, {left:.0%} of the average are the untrained "
            f"network; take a smaller decay, or trainer.ema='{{decay: {self.decay:g}, warmup: true}}'"
        )


def averaging(ema: float | Averaging | None) -> Averaging | None:
    """The settings that `trainer.ema` stands for; a number is a decay without warm-up."""
    return Averaging(decay=ema, warmup=False) if isinstance(ema, float | int) else ema


class Ema:
    """A copy of a network whose parameters and float buffers are exponential moving averages.

    Float buffers are, above all, the statistics of batch norms: the averaged weights need averaged statistics. Other
    buffers, such as counters, are copies.

    Args:
        model: The network in training.
        settings: `average = decay * average + (1 - decay) * value` in each step.
    """

    def __init__(self, model: nn.Module, settings: Averaging):
        self.source, self.settings = model, settings
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        # an infinite constant, such as the mask of an attention, has no average
        self._averaged = [b.is_floating_point() and bool(b.isfinite().all()) for b in model.buffers()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the network after a step, counted from 1."""
        ours: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(self.source.parameters())
        for mine, other, averaged in zip(self.model.buffers(), self.source.buffers(), self._averaged, strict=True):
            if averaged:
                ours.append(mine)
                theirs.append(other)
            else:
                mine.copy_(other)
        torch._foreach_lerp_(ours, theirs, weight=1 - self.settings.at(step))

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(state)
