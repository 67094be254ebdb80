"""Numbers that change during a run: pure functions of progress, so that a resumed run needs no state."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from kdx.core.ranges import Fraction, NonNegative, PartialFraction, Positive


@dataclass(frozen=True)
class Progress:
    """Progress of a run, before its next step.

    Attributes:
        step: Optimiser steps taken so far.
        steps: Optimiser steps of the whole run.
        epochs: Length of the schedule in epochs, the unit of schedules. A run with fewer steps than the recipe runs the
            same schedule faster.
    """

    step: int
    steps: int
    epochs: float

    @property
    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return self.step / self.steps if self.steps else 0.0

    @property
    def epoch(self) -> int:
        """Current schedule epoch, counted from 0."""
        # 150 * (1 / 240) * 240 must not round down to 149.99999
        return math.floor(self.fraction * self.epochs + 1e-9)

    @property
    def exact_epoch(self) -> float:
        """Schedule epochs done, including the fraction of the current one."""
        return self.fraction * self.epochs

    def read(self, schedule: "Schedule") -> float:
        """Value of a schedule at this point."""
        return schedule(self)


class Schedule:
    """A number as a function of progress."""

    def __call__(self, progress: Progress) -> float:
        raise NotImplementedError

    def unreached(self, epochs: float) -> Iterator[str]:
        """A line for each part of the schedule that a run of this many schedule epochs does not reach.

        Example:
            >>> list(MultiStep([150, 180], 0.1).unreached(160))
            ['the milestone 180 lies beyond']
        """
        yield from ()


Scalar = float | Schedule
Weight = NonNegative | Schedule  # weight of a term in a sum


def at(value: Scalar, progress: Progress) -> float:
    """The value of a number or a schedule at this point of the run.

    Example:
        >>> at(0.5, Progress(step=10, steps=100, epochs=10))
        0.5
        >>> at(Linear(start=0.0, end=1.0, until=10), Progress(step=50, steps=100, epochs=10))
        0.5
    """
    return progress.read(value) if isinstance(value, Schedule) else value


class Watched(Progress):
    """A progress that records the values read from it: `reads` holds functions of progress and their values.

    A step taken with it would be the same at any progress at which all these functions have the same values.
    """

    reads: list[tuple[Callable[[Progress], Any], Any]]
    _plain: Progress

    def __init__(self, plain: Progress):
        super().__init__(plain.step, plain.steps, plain.epochs)
        object.__setattr__(self, "_plain", plain)
        object.__setattr__(self, "reads", [])

    def __getattribute__(self, name: str) -> Any:
        if name not in ("step", "fraction", "epoch", "exact_epoch"):
            return super().__getattribute__(name)
        read: Callable[[Progress], Any] = attrgetter(name)
        value = read(self._plain)
        self.reads.append((read, value))
        return value

    def read(self, schedule: Schedule) -> float:
        inner = Watched(self._plain)
        value = schedule(inner)
        # a learned number is no function of progress, but the schedules that it reads are
        self.reads += [(schedule, value)] if isinstance(value, float | int) else inner.reads
        return value


class WarmUp(Schedule):
    """`to * min(epoch / epochs, 1)`, with the epoch counted from 1, in whole epochs.

    The ramp of DKD and ReviewKD: the first epoch runs at `to / epochs`.
    """

    def __init__(self, to: float, epochs: NonNegative):
        self.to, self.epochs = to, epochs

    def __call__(self, progress: Progress) -> float:
        return self.to * min((progress.epoch + 1) / self.epochs, 1.0) if self.epochs else self.to

    def unreached(self, epochs: float) -> Iterator[str]:
        if self.epochs > math.ceil(epochs):
            yield f"the ramp of {self.epochs:g} epochs ends beyond, so the value stays below {self.to:g}"


class GaussianRamp(Schedule):
    """`to * exp(-5 (1 - epoch / epochs)^2)`, in whole epochs counted from 0; `to` from `epochs` on.

    Online distillation ramps its weight up with it, so that the networks learn from the labels first.

    References:
        Laine, Aila, "Temporal Ensembling for Semi-Supervised Learning", 2017. https://arxiv.org/abs/1610.02242
    """

    def __init__(self, to: float, epochs: Positive):
        self.to, self.epochs = to, epochs

    def __call__(self, progress: Progress) -> float:
        return self.to * math.exp(-5 * (1 - min(progress.epoch / self.epochs, 1.0)) ** 2)

    def unreached(self, epochs: float) -> Iterator[str]:
        if self.epochs > epochs:
            yield f"the ramp of {self.epochs:g} epochs ends beyond, so the value stays below {self.to:g}"


class EpochRamp(Schedule):
    """`to * epoch / epochs of the run`, with the epoch counted from 1, so that the last epoch runs at `to`."""

    def __init__(self, to: float):
        self.to = to

    def __call__(self, progress: Progress) -> float:
        return self.to * min((progress.epoch + 1) / progress.epochs, 1.0)


class Linear(Schedule):
    """From `start` to `end`, linearly per step, between two schedule epochs; constant outside."""

    def __init__(self, start: float, end: float, until: NonNegative, since: NonNegative = 0.0):
        if until <= since:
            raise ValueError(f"a schedule must end after it begins: since {since}, until {until}")
        self.start, self.end, self.since, self.until = start, end, since, until

    def __call__(self, progress: Progress) -> float:
        x = (progress.exact_epoch - self.since) / (self.until - self.since)
        return self.start + (self.end - self.start) * min(max(x, 0.0), 1.0)

    def unreached(self, epochs: float) -> Iterator[str]:
        if self.since >= epochs:
            yield f"it starts beyond, at epoch {self.since:g}, so the value stays at {self.start:g}"
        elif self.until > epochs:
            yield f"it ends beyond, at epoch {self.until:g}, so the value does not reach {self.end:g}"


class Cosine(Linear):
    """Like `Linear`, along half a cosine."""

    def __call__(self, progress: Progress) -> float:
        x = (progress.exact_epoch - self.since) / (self.until - self.since)
        x = 0.5 - 0.5 * math.cos(math.pi * min(max(x, 0.0), 1.0))
        return self.start + (self.end - self.start) * x


class Ramp(Schedule):
    """From `start` to `end`, linearly per step, between two fractions of the run; constant outside.

    For recipes that state durations as fractions of the run, which fit runs of any length.
    """

    def __init__(self, start: float, end: float, until: Fraction = 1.0, since: PartialFraction = 0.0):
        if until <= since:
            raise ValueError(f"a schedule must end after it begins: since {since}, until {until}")
        self.start, self.end, self.since, self.until = start, end, since, until

    def __call__(self, progress: Progress) -> float:
        x = (progress.fraction - self.since) / (self.until - self.since)
        return self.start + (self.end - self.start) * min(max(x, 0.0), 1.0)


class Geometric(Schedule):
    """`start * factor^e` after `e` whole schedule epochs, at most `limit`."""

    def __init__(self, start: NonNegative, factor: Positive, limit: NonNegative = math.inf):
        self.start, self.factor, self.limit = start, factor, limit

    def __call__(self, progress: Progress) -> float:
        return min(self.start * self.factor**progress.epoch, self.limit)


class Between(Schedule):
    """`value` from schedule epoch `since` up to, not including, `until`; 0 elsewhere."""

    def __init__(self, value: float, since: NonNegative = 0.0, until: NonNegative = math.inf):
        self.value, self.since, self.until = value, since, until

    def __call__(self, progress: Progress) -> float:
        return self.value if self.since <= progress.epoch < self.until else 0.0

    def unreached(self, epochs: float) -> Iterator[str]:
        if self.since >= epochs:
            yield f"it starts beyond, at epoch {self.since:g}, so the value stays at 0"
        elif epochs < self.until < math.inf:
            yield f"it ends beyond, at epoch {self.until:g}, so the value stays at {self.value:g}"


class MultiStep(Schedule):
    """`value * gamma^k`, with k the number of milestones passed.

    The literature counts epochs from 1 and decays when the epoch exceeds the milestone. That is the first step after
    `milestone` whole epochs, as here.
    """

    def __init__(self, milestones: Sequence[float], gamma: NonNegative, value: float = 1.0):
        self.milestones, self.gamma, self.value = tuple(milestones), gamma, value

    def __call__(self, progress: Progress) -> float:
        passed = sum(progress.exact_epoch + 1e-9 >= m for m in self.milestones)
        return self.value * self.gamma**passed

    def unreached(self, epochs: float) -> Iterator[str]:
        if beyond := [f"{m:g}" for m in self.milestones if m >= epochs]:
            yield f"the milestone{'s' * (len(beyond) > 1)} {', '.join(beyond)} lie{'s' * (len(beyond) == 1)} beyond"
