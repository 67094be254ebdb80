"""Summaries over seeds, and comparisons of two sets of runs.

A difference has two intervals. The one over seeds holds for the given test set: another test set is another question.
The one over seeds and examples counts the test set as a sample as well, and needs the outcome of each example.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kdx.core.metric import digits_of, fixed, short
from kdx.tables.examples import Outcomes, example_variance
from kdx.tables.sequential import e_value, sequence_half_width
from kdx.tables.student_t import half_width, t_quantile, two_sided

CONFIDENCE = 0.95
ENOUGH = 3  # minimum number of seeds for a verdict

Interval = tuple[float, float]
ROUNDING = 1e-9
NONE: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class Summary:
    """Mean and spread of n numbers.

    Attributes:
        mean: Arithmetic mean.
        std: Sample standard deviation (n - 1); NaN for a single number.
        n: Number of values.
    """

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        """Summarise values. Raises ValueError if there are none."""
        if not values:
            raise ValueError("a mean needs at least one number")
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return cls(mean, math.nan, 1)
        variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
        return cls(mean, math.sqrt(variance), len(values))

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean by Student's t; NaN on both sides for a single number."""
        if self.n == 1:
            return NONE
        half = t_quantile((1 + CONFIDENCE) / 2, self.n - 1) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def show(self, scale: float, digits: int) -> str:
        """ "97.07 ± 0.15", or "97.07" for a single number; at most two digits of the spread.

        Example:
            >>> Summary(0.6018, 0.0999, 3).show(100, 2), Summary(0.9707, math.nan, 1).show(100, 2)
            ('60.2 ± 10.0', '97.07')
        """
        digits = digits_of(short(self.std) * scale, digits)
        mean = fixed(self.mean, digits, scale)
        return mean if math.isnan(self.std) else f"{mean} ± {fixed(self.std, digits, scale)}"


@dataclass(frozen=True)
class Comparison:
    """Comparison of two sets of runs.

    Attributes:
        left, right: The values compared, right minus left; of the pairs alone where there are pairs.
        gain: Differences seed by seed where they are paired; else the difference of the means, with the standard
            deviation of a single difference.
        seeds: Seeds of the pairs; empty for an unpaired comparison.
        error: Standard error of the difference over seeds, given the test set, at least that of rounding to the grain;
            NaN where a side has one number.
        freedom: Its degrees of freedom.
        examples: Standard error over the test examples, on top of `error`; None if the outcomes are not known.
        grain: Smallest difference that counts: one test example, or one unit of the last digit shown.
        anytime: Whether seeds were added until the difference was decided: then interval and p-value are those of
            `kdx.tables.sequential`, which hold at every number of seeds.
    """

    left: Summary
    right: Summary
    gain: Summary
    seeds: tuple[int, ...]
    error: float
    freedom: float
    examples: float | None
    grain: float
    anytime: bool = False

    @property
    def paired(self) -> bool:
        return bool(self.seeds)

    @property
    def enough(self) -> bool:
        """Whether each side has at least three values."""
        return min(self.left.n, self.right.n) >= ENOUGH

    @cached_property
    def interval(self) -> Interval:
        """95 % interval of the difference over seeds, given the test set; Student's over pairs, else Welch's.

        With `anytime` the interval of the confidence sequence, infinite before it can decide anything.
        """
        return self._interval(0.0)

    @cached_property
    def whole(self) -> Interval | None:
        """Interval over seeds and test examples, of at least 95 %; None if the outcomes are not known."""
        return None if self.examples is None else self._interval(self.examples)

    @cached_property
    def p(self) -> float:
        """Two-sided p-value of no difference: that of `whole`, or of `interval` if `whole` is None; NaN if neither."""
        if math.isnan(self.error):
            return math.nan
        # a difference of one grain is none, whichever way it was rounded
        distance = abs(self.gain.mean) if abs(self.gain.mean) > self.grain * (1 + ROUNDING) else 0.0
        if self.anytime:
            return min(1.0, 1 / e_value(distance, self.error * math.sqrt(self.gain.n), self.gain.n))
        return two_sided(distance, self.error, self.freedom, self.examples or 0.0)

    @property
    def rests(self) -> str:
        """The population that the verdict is about."""
        return "seeds" if self.whole is None else "seeds and examples"

    @property
    def significant(self) -> bool:
        """Whether zero lies outside the interval, from enough values."""
        return self.enough and self.p < 1 - CONFIDENCE

    def _interval(self, examples: float) -> Interval:
        if math.isnan(self.error):
            return NONE
        # a difference below the grain is indistinguishable from zero, however small the spread
        if self.anytime:
            half = sequence_half_width(1 - CONFIDENCE, self.error * math.sqrt(self.gain.n), self.gain.n)
        else:
            half = half_width(1 - CONFIDENCE, self.error, self.freedom, examples)
        half = max(half, self.grain)
        return self.gain.mean - half, self.gain.mean + half


def compare(
    values: Mapping[int, float],
    baseline: Mapping[int, float],
    grain: float = 0.0,
    outcomes: tuple[Outcomes, Outcomes] | None = None,
    anytime: bool = False,
) -> Comparison:
    """Compare values by seed, paired where `pairs` finds pairs.

    Args:
        values, baseline: Values by seed.
        grain: Smallest difference that counts, see `Comparison`.
        outcomes: Outcomes of the test examples by seed, of both sides; None if they were not kept.
        anytime: Whether seeds were added until the difference was decided, see `Comparison`. All seeds in common are
            pairs then, and the outcomes of examples are not used.

    Raises:
        ValueError: A side is empty, or there is no pair for `anytime`.
    """
    seeds = tuple(seed for seed in values if seed in baseline) if anytime else pairs(values, baseline)
    if anytime and not seeds:
        raise ValueError("the seeds of both sides are different, so that there are no pairs")
    if seeds:
        values, baseline = ({seed: of[seed] for seed in seeds} for of in (values, baseline))
    right, left = Summary.of(list(values.values())), Summary.of(list(baseline.values()))
    if seeds:
        gain = Summary.of([values[seed] - baseline[seed] for seed in seeds])
        error, freedom = gain.std / math.sqrt(gain.n), gain.n - 1.0
    else:
        gain = Summary(right.mean - left.mean, math.hypot(left.std, right.std), min(left.n, right.n))
        error, freedom = welch(right, left)
    # a spread below that of rounding to the grain, uniform on both sides, is not known
    error = max(error, grain / math.sqrt(6 * gain.n)) if not math.isnan(error) else error
    examples = None
    if outcomes is not None and min(left.n, right.n) > 1 and not anytime:
        ours, theirs = ([of[seed] for seed in side] for of, side in zip(outcomes, (values, baseline), strict=True))
        examples = math.sqrt(example_variance(ours, theirs, bool(seeds)))
    return Comparison(left, right, gain, seeds, error, freedom, examples, grain, anytime)


def pairs(values: Mapping[int, object], baseline: Mapping[int, object]) -> tuple[int, ...]:
    """Seeds to pair over: all where both sides have the same; else those in common, if they are at least three and more
    than half of each side; else none.

    Pairing cancels effects of a seed on both sides, such as the order of the data, and leaves out the other seeds.

    Example:
        >>> pairs({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, {0: 1.0, 1: 1.0, 2: 1.0})
        (0, 1, 2)
        >>> pairs({0: 1.0, 1: 1.0, 2: 1.0}, {0: 1.0, 1: 1.0, 7: 1.0})
        ()
    """
    shared = tuple(sorted(values.keys() & baseline.keys()))
    most = max(len(values), len(baseline))
    whole = len(shared) == most > 1
    return shared if whole or (len(shared) >= ENOUGH and 2 * len(shared) > most) else ()


def welch(left: Summary, right: Summary) -> tuple[float, float]:
    """Standard error of a difference of two means and its degrees of freedom, for spreads that need not be equal.

    Returns:
        NaN and NaN where a side has a single number.

    References:
        B. L. Welch. The generalization of Student's problem. Biometrika, 1947.
    """
    if left.n == 1 or right.n == 1:
        return NONE
    a, b = left.std**2 / left.n, right.std**2 / right.n
    if a + b == 0:
        return 0.0, left.n + right.n - 2.0
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (left.n - 1) + b**2 / (right.n - 1))


def grain_of(values: Sequence[float], tested: int | None, unit: float) -> float:
    """The smallest difference that counts between some values.

    Args:
        values: The values.
        tested: Number of test examples; None if unknown.
        unit: One unit of the last digit that is shown.

    Returns:
        The share of one example where all values are shares of the examples, at least `unit`.

    Example:
        >>> grain_of([0.5, 0.75], 4, 0.0001), grain_of([0.51], 4, 0.0001)
        (0.25, 0.0001)
    """
    counted = bool(tested) and all(abs(v * (tested or 0) - round(v * (tested or 0))) < 1e-4 for v in values)
    return max(unit, 1 / tested) if tested and counted else unit


def caution(n: int) -> str | None:
    """A warning if there are too few seeds for a verdict; else None."""
    if n >= ENOUGH:
        return None
    return f"{n} seed{'s' if n != 1 else ''} only, fewer than {ENOUGH}: the spread says little, so there is no verdict"
