"""Summaries over seeds, and comparisons of two sets of runs."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
ENOUGH = 3  # minimum number of seeds for a meaningful spread
RESAMPLES = 10_000
BOOTSTRAP_SEED = 0

Interval = tuple[float, float]


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
            return math.nan, math.nan
        half = t_quantile((1 + CONFIDENCE) / 2, self.n - 1) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def show(self, scale: float, digits: int) -> str:
        """ "97.07 ± 0.15", or "97.07" for a single number."""
        if math.isnan(self.std):
            return f"{self.mean * scale:.{digits}f}"
        return f"{self.mean * scale:.{digits}f} ± {self.std * scale:.{digits}f}"


@dataclass(frozen=True)
class Comparison:
    """Comparison of two sets of runs.

    Attributes:
        gain: Differences seed by seed where the seeds match; else the difference of the means, with the
            standard deviation of a single difference.
        interval: 95 % interval of the mean difference: Student's t over the pairs, Welch's without pairs.
        bootstrap: The same interval by resampling pairs; None without pairs.
        seeds: Seeds that both sets have; empty for an unpaired comparison.
        enough: Whether each side has at least three values.
    """

    gain: Summary
    interval: Interval
    bootstrap: Interval | None
    seeds: tuple[int, ...]
    enough: bool

    @property
    def significant(self) -> bool:
        """Whether zero lies outside the interval, from enough values."""
        low, high = self.interval
        return self.enough and (low > 0 or high < 0)


def compare(values: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison:
    """Compare values by seed: paired over common seeds, or unpaired if fewer than two seeds match.

    Pairing cancels effects of a seed on both sides, such as the order of the data.

    Raises:
        ValueError: A side is empty.
    """
    seeds = tuple(sorted(values.keys() & baseline.keys()))
    if len(seeds) >= 2:
        differences = [values[seed] - baseline[seed] for seed in seeds]
        gain = Summary.of(differences)
        return Comparison(gain, gain.interval, bootstrap(differences), seeds, len(seeds) >= ENOUGH)
    left, right = Summary.of(list(values.values())), Summary.of(list(baseline.values()))
    mean, interval = welch(left, right)
    spread = math.hypot(left.std, right.std)
    n = min(left.n, right.n)
    return Comparison(Summary(mean, spread, n), interval, None, (), n >= ENOUGH)


def paired_gain(values: Sequence[float], baseline: Sequence[float]) -> Summary:
    """Paired differences per seed, which cancel the effects of a seed on both sides."""
    return Summary.of([v - b for v, b in zip(values, baseline, strict=True)])


def bootstrap(values: Sequence[float]) -> Interval:
    """95 % percentile bootstrap interval of the mean, with a fixed seed, so that it is deterministic.

    For few values it is too narrow, since it resamples only these; the t interval is not.

    References:
        B. Efron, R. Tibshirani. An Introduction to the Bootstrap. Chapman & Hall, 1993.
    """
    if not values:
        raise ValueError("a mean needs at least one number")
    # random() is the only generator whose stream Python guarantees
    draw, n = random.Random(BOOTSTRAP_SEED).random, len(values)
    means = sorted(math.fsum(values[int(draw() * n)] for _ in range(n)) / n for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    return means[math.floor(tail * RESAMPLES)], means[math.ceil((1 - tail) * RESAMPLES) - 1]


def welch(left: Summary, right: Summary) -> tuple[float, Interval]:
    """Difference of two means and its 95 % interval, for spreads that need not be equal.

    Returns:
        left - right, and the interval; NaN on both sides where a side has a single number.

    References:
        B. L. Welch. The generalization of Student's problem. Biometrika, 1947.
    """
    difference = left.mean - right.mean
    if left.n == 1 or right.n == 1:
        return difference, (math.nan, math.nan)
    a, b = left.std**2 / left.n, right.std**2 / right.n
    if a + b == 0:
        return difference, (difference, difference)
    freedom = (a + b) ** 2 / (a**2 / (left.n - 1) + b**2 / (right.n - 1))
    half = t_quantile((1 + CONFIDENCE) / 2, freedom) * math.sqrt(a + b)
    return difference, (difference - half, difference + half)


def caution(n: int) -> str | None:
    """A warning if there are too few seeds for a verdict; else None."""
    if n >= ENOUGH:
        return None
    return f"{n} seed{'s' if n != 1 else ''} only, fewer than {ENOUGH}: the spread says little, so there is no verdict"


def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution.

    Args:
        probability: In (0, 1).
        freedom: Degrees of freedom, above 0; not an integer for Welch's test.
    """
    if not 0 < probability < 1 or freedom <= 0:
        raise ValueError(f"a quantile needs a probability in (0, 1) and freedom above 0, got {probability}, {freedom}")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < probability:
        high *= 2
    while high - low > 1e-12 * max(high, 1.0):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _t_below(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _t_below(t: float, freedom: float) -> float:
    """P(T < t) for t >= 0."""
    return 1 - 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Abramowitz and Stegun 26.5.8)."""
    if x in (0.0, 1.0):
        return x
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # the fraction converges fast on one side of the mean; the other side uses the symmetry
    if x > (a + 1) / (a + b + 2):
        return 1 - front * _fraction(b, a, 1 - x) / b
    return front * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000):
        before = value
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = 1 + numerator / c, 1 / (1 + numerator * d)
            value *= c * d
        if abs(value - before) <= 1e-15 * abs(value):
            return value
    raise ArithmeticError(f"the continued fraction does not converge at a={a}, b={b}, x={x}")
