"""Numbers that change while a run progresses. Pure functions of progress, so that a resumed run needs no state."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from kdx.core.ranges import Fraction, NonNegative, PartialFraction, Positive


@dataclass(frozen=True)
class Progress:
    """How far a run has come, before the step about to be taken.

    Attributes:
        step: Optimiser steps taken so far.
        steps: Optimiser steps of the whole run.
        epochs: Length of the schedule in epochs. Schedules are written in these; a run given fewer
            steps than the recipe plays the same schedule faster.
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
        """Schedule epoch in hand, counted from 0."""
        # the guard keeps 150 * (1 / 240) * 240 from landing at 149.99999
        return math.floor(self.fraction * self.epochs + 1e-9)

    @property
    def exact_epoch(self) -> float:
        """Schedule epochs done, with the part of the one in hand."""
        return self.fraction * self.epochs

    def read(self, schedule: "Schedule") -> float:
        """What a schedule says at this point."""
        return schedule(self)


class Schedule:
    """A number as a function of progress."""

    def __call__(self, progress: Progress) -> float:
        raise NotImplementedError


Scalar = float | Schedule
Weight = NonNegative | Schedule  # of a term in a sum


def at(value: Scalar, progress: Progress) -> float:
    """The value of a number or a schedule at this point of the run."""
    return progress.read(value) if isinstance(value, Schedule) else value


class Watched(Progress):
    """A progress that notes what is read of it: `reads` are functions of progress, with what they gave.

    A step that was taken with it is the same at another progress where all of them give the same again.
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
        # a number that is learned is no function of progress, but what it is made of may be
        self.reads += [(schedule, value)] if isinstance(value, float | int) else inner.reads
        return value


class WarmUp(Schedule):
    """`to * min(epoch / epochs, 1)` with the epoch counted from 1, in whole epochs.

    The ramp of DKD and ReviewKD: the first epoch already runs at `to / epochs`.
    """

    def __init__(self, to: float, epochs: NonNegative):
        self.to, self.epochs = to, epochs

    def __call__(self, progress: Progress) -> float:
        return self.to * min((progress.epoch + 1) / self.epochs, 1.0) if self.epochs else self.to


class GaussianRamp(Schedule):
    """`to * exp(-5 (1 - epoch / epochs)^2)`, in whole epochs counted from 0; `to` from `epochs` on.

    How online distillation lets its networks learn something before they teach it.

    References:
        Laine, Aila, "Temporal Ensembling for Semi-Supervised Learning", 2017. https://arxiv.org/abs/1610.02242
    """

    def __init__(self, to: float, epochs: Positive):
        self.to, self.epochs = to, epochs

    def __call__(self, progress: Progress) -> float:
        return self.to * math.exp(-5 * (1 - min(progress.epoch / self.epochs, 1.0)) ** 2)


class EpochRamp(Schedule):
    """`to * epoch / epochs of the run`, with the epoch counted from 1: steps that reach `to` in the last epoch."""

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


class Cosine(Linear):
    """Like `Linear`, along half a cosine."""

    def __call__(self, progress: Progress) -> float:
        x = (progress.exact_epoch - self.since) / (self.until - self.since)
        x = 0.5 - 0.5 * math.cos(math.pi * min(max(x, 0.0), 1.0))
        return self.start + (self.end - self.start) * x


class Ramp(Schedule):
    """From `start` to `end`, linearly per step, between two fractions of the run; constant outside.

    For recipes that say how long by the run and not in epochs, so that they fit runs of any length.
    """

    def __init__(self, start: float, end: float, until: Fraction = 1.0, since: PartialFraction = 0.0):
        if until <= since:
            raise ValueError(f"a schedule must end after it begins: since {since}, until {until}")
        self.start, self.end, self.since, self.until = start, end, since, until

    def __call__(self, progress: Progress) -> float:
        x = (progress.fraction - self.since) / (self.until - self.since)
        return self.start + (self.end - self.start) * min(max(x, 0.0), 1.0)


class Between(Schedule):
    """`value` from schedule epoch `since` up to, not including, `until`; 0 elsewhere."""

    def __init__(self, value: float, since: NonNegative = 0.0, until: NonNegative = math.inf):
        self.value, self.since, self.until = value, since, until

    def __call__(self, progress: Progress) -> float:
        return self.value if self.since <= progress.epoch < self.until else 0.0


class MultiStep(Schedule):
    """`value * gamma^k`, where k milestones are passed.

    The literature counts epochs from 1 and decays when the epoch exceeds the milestone; that is the
    first step after `milestone` whole epochs, which is what happens here.
    """

    def __init__(self, milestones: Sequence[float], gamma: NonNegative, value: float = 1.0):
        self.milestones, self.gamma, self.value = tuple(milestones), gamma, value

    def __call__(self, progress: Progress) -> float:
        passed = sum(progress.exact_epoch + 1e-9 >= m for m in self.milestones)
        return self.value * self.gamma**passed
