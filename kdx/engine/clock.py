"""Durations in epochs, steps or examples, and the position of a run within its duration."""

import math
from dataclasses import dataclass
from typing import Protocol

from kdx.core.errors import UserError
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Length of training in exactly one unit.

    Attributes:
        epochs: Passes over the training set.
        steps: Optimizer steps.
        examples: Training examples seen, the short last batch of an epoch counted as it is.
    """

    epochs: Positive | None
    steps: PositiveInt | None
    examples: PositiveInt | None

    def __post_init__(self):
        given = [unit for unit in ("epochs", "steps", "examples") if getattr(self, unit) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise UserError(f"a duration needs exactly one of epochs, steps, examples; found {found}")

    def in_steps(self, steps_per_epoch: int, batch_size: int, examples_per_epoch: int) -> int:
        """Number of optimizer steps, at least one; a fraction of an epoch or a batch is rounded up.

        Args:
            steps_per_epoch: Batches of an epoch.
            batch_size: Examples of a batch; the last one of an epoch may be short.
            examples_per_epoch: Examples in these batches.
        """
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            # 0.1 * 30 is slightly more than 3 in floating point
            return max(1, math.ceil(self.epochs * steps_per_epoch - 1e-9))
        assert self.examples is not None
        epochs, rest = divmod(self.examples, examples_per_epoch)
        return epochs * steps_per_epoch + math.ceil(rest / batch_size)


class Lengths(Protocol):
    """Lengths of an epoch."""

    steps_per_epoch: int
    examples_per_epoch: int


class Clock:
    """Counts optimizer steps.

    Args:
        steps: Length of the run in optimizer steps.
        steps_per_epoch: Optimizer steps in a pass over the training set.
        schedule_epochs: Epochs that the schedules are written for; None for the run's own length.
        batch_size: Examples of a batch; the last one of an epoch may be short.
        examples_per_epoch: Examples in the batches of an epoch.
    """

    def __init__(
        self,
        steps: int,
        steps_per_epoch: int,
        schedule_epochs: float | None,
        batch_size: int = 1,
        examples_per_epoch: int | None = None,
    ):
        self.step = 0
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        whole, rest = divmod(steps, steps_per_epoch)
        per_epoch = steps_per_epoch * batch_size if examples_per_epoch is None else examples_per_epoch
        self.examples = whole * per_epoch + min(rest * batch_size, per_epoch)  # of the whole run
        self.schedule_epochs = steps / steps_per_epoch if schedule_epochs is None else schedule_epochs

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    @property
    def position(self) -> tuple[int, int]:
        """Current epoch and step within it, both counted from 0."""
        return divmod(self.step, self.steps_per_epoch)

    @property
    def epochs(self) -> float:
        """Passes over the training set so far."""
        return self.step / self.steps_per_epoch

    def progress(self) -> Progress:
        return Progress(self.step, self.steps, self.schedule_epochs)

    def due(self, every_epochs: float | None) -> bool:
        """Whether the last counted step completes a multiple of `every_epochs`, or the run."""
        if self.done:
            return True
        if every_epochs is None:
            return False
        period = every_epochs * self.steps_per_epoch
        return math.floor(self.step / period + 1e-9) > math.floor((self.step - 1) / period + 1e-9)
