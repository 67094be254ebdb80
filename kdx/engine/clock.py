"""Durations with units, and where a run stands in its own."""

import math
from dataclasses import dataclass

from kdx.core.errors import UserError
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress


@dataclass(frozen=True, kw_only=True)
class Duration:
    """A length of training in exactly one unit.

    Attributes:
        epochs: Passes over the training set.
        steps: Optimiser steps.
        examples: Training examples seen.
    """

    epochs: Positive | None
    steps: PositiveInt | None
    examples: PositiveInt | None

    def __post_init__(self):
        given = [unit for unit in ("epochs", "steps", "examples") if getattr(self, unit) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise UserError(f"a duration needs exactly one of epochs, steps, examples; found {found}")

    def in_steps(self, steps_per_epoch: int, batch_size: int) -> int:
        """Optimiser steps, at least one; parts of an epoch and of a batch are rounded up."""
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            # the guard keeps 0.1 * 30 steps at 3, not 4
            return max(1, math.ceil(self.epochs * steps_per_epoch - 1e-9))
        assert self.examples is not None
        return max(1, math.ceil(self.examples / batch_size))


class Clock:
    """Counts optimiser steps.

    Args:
        steps: Length of the run in optimiser steps.
        steps_per_epoch: Optimiser steps in a pass over the training set.
        schedule_epochs: Epochs that the schedules are written for; None for the run's own length.
    """

    def __init__(self, steps: int, steps_per_epoch: int, schedule_epochs: float | None):
        self.step = 0
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.schedule_epochs = steps / steps_per_epoch if schedule_epochs is None else schedule_epochs

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    @property
    def position(self) -> tuple[int, int]:
        """Epoch in hand, counted from 0, and the step inside it."""
        return divmod(self.step, self.steps_per_epoch)

    @property
    def epochs(self) -> float:
        """Passes over the training set so far."""
        return self.step / self.steps_per_epoch

    def progress(self) -> Progress:
        return Progress(self.step, self.steps, self.schedule_epochs)

    def due(self, every_epochs: float | None) -> bool:
        """Whether the step just counted crosses a multiple of `every_epochs`, or is the last one."""
        if self.done:
            return True
        if every_epochs is None:
            return False
        period = every_epochs * self.steps_per_epoch
        return math.floor(self.step / period + 1e-9) > math.floor((self.step - 1) / period + 1e-9)
