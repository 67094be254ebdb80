"""Learning-rate schedules: factors on the base learning rate, as pure functions of progress."""

import math
from collections.abc import Iterator, Sequence

from kdx.core.ranges import NonNegative, Probability
from kdx.core.schedule import MultiStep as MultiStepFactor
from kdx.core.schedule import Progress, Schedule


class LearningRate(Schedule):
    """Linear warm-up per step, then a decay.

    Args:
        warmup_epochs: Length of the warm-up, in schedule epochs.
        warmup_start: Factor at the first step; rises to 1.
    """

    def __init__(self, warmup_epochs: NonNegative, warmup_start: Probability):
        self.warmup_epochs, self.warmup_start = warmup_epochs, warmup_start

    def decay(self, progress: Progress) -> float:
        raise NotImplementedError

    def __call__(self, progress: Progress) -> float:
        if progress.exact_epoch < self.warmup_epochs:
            x = progress.exact_epoch / self.warmup_epochs
            return self.warmup_start + (1 - self.warmup_start) * x
        return self.decay(progress)

    def unreached(self, epochs: float) -> Iterator[str]:
        if self.warmup_epochs >= epochs:
            yield f"the warm-up of {self.warmup_epochs:g} epochs ends beyond, so the rate does not reach its base"


class Constant(LearningRate):
    """The base learning rate after the warm-up."""

    def decay(self, progress: Progress) -> float:
        return 1.0


class MultiStep(LearningRate):
    """Factor `gamma` after each milestone; milestones are in whole schedule epochs."""

    def __init__(
        self,
        milestones: Sequence[float],
        gamma: NonNegative,
        warmup_epochs: NonNegative,
        warmup_start: Probability,
    ):
        super().__init__(warmup_epochs, warmup_start)
        self._factor = MultiStepFactor(milestones, gamma)

    def decay(self, progress: Progress) -> float:
        return self._factor(progress)

    def unreached(self, epochs: float) -> Iterator[str]:
        yield from super().unreached(epochs)
        yield from self._factor.unreached(epochs)


class Piecewise(LearningRate):
    """Factor `factors[k]` after k milestones; milestones are in whole schedule epochs.

    Args:
        milestones: Schedule epochs at which the factor changes, in increasing order.
        factors: One more than there are milestones.
        warmup_epochs: Length of the warm-up, in schedule epochs.
        warmup_start: Factor at the first step.

    Raises:
        ValueError: The numbers of milestones and factors do not fit, or milestones do not increase.

    Example:
        >>> rate = Piecewise([30, 150], [0.2, 1.0, 0.1], 0, 0)
        >>> [rate(Progress(step=epoch, steps=240, epochs=240)) for epoch in (0, 29, 30, 149, 150)]
        [0.2, 0.2, 1.0, 1.0, 0.1]
    """

    def __init__(
        self,
        milestones: Sequence[float],
        factors: Sequence[NonNegative],
        warmup_epochs: NonNegative,
        warmup_start: Probability,
    ):
        super().__init__(warmup_epochs, warmup_start)
        if len(factors) != len(milestones) + 1:
            raise ValueError(
                f"schedule.factors needs {len(milestones) + 1} numbers, one more than schedule.milestones; "
                f"it has {len(factors)}"
            )
        if list(milestones) != sorted(set(milestones)):
            raise ValueError(f"schedule.milestones must increase, got {list(milestones)}")
        self.milestones, self.factors = tuple(milestones), tuple(factors)

    def decay(self, progress: Progress) -> float:
        return self.factors[sum(progress.exact_epoch + 1e-9 >= m for m in self.milestones)]


class Linear(LearningRate):
    """Linear decay from the end of the warm-up to the end of the run.

    Args:
        end: Factor at the end.
    """

    def __init__(self, end: Probability, warmup_epochs: NonNegative, warmup_start: Probability):
        super().__init__(warmup_epochs, warmup_start)
        self.end = end

    def decay(self, progress: Progress) -> float:
        x = (progress.exact_epoch - self.warmup_epochs) / (progress.epochs - self.warmup_epochs)
        return 1 - min(1.0, x) * (1 - self.end)


class Cosine(LearningRate):
    """Half a cosine period from 1 at the end of the warm-up to `end` at the end of the run."""

    def __init__(self, end: Probability, warmup_epochs: NonNegative, warmup_start: Probability):
        super().__init__(warmup_epochs, warmup_start)
        self.end = end

    def decay(self, progress: Progress) -> float:
        x = (progress.exact_epoch - self.warmup_epochs) / (progress.epochs - self.warmup_epochs)
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(x, 1.0)))
