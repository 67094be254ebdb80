"""Several comparisons at once: which survive, and how large the best of them is by chance."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, median
from typing import TypeVar

from kdx.tables.statistics import CONFIDENCE, Comparison

Name = TypeVar("Name")
STEPS = 400  # of the integral over the normal distribution


def holm(p: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjusted p-values: rejecting those below alpha has a chance of at most alpha for any false rejection.

    NaN stays NaN and is not counted.

    References:
        S. Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics, 1979.

    Example:
        >>> holm({"a": 0.01, "b": 0.03, "c": 0.04})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    known = sorted((value, place) for place, value in enumerate(p.values()) if not math.isnan(value))
    adjusted, most = dict.fromkeys(range(len(p)), math.nan), 0.0
    for rank, (value, place) in enumerate(known):
        most = max(most, min(1.0, (len(known) - rank) * value))
        adjusted[place] = most
    return {name: adjusted[place] for place, name in enumerate(p)}


def survivors(comparisons: Mapping[Name, Comparison]) -> set[Name]:
    """The comparisons that Holm's procedure keeps, among those with enough seeds."""
    judged = {name: of.p for name, of in comparisons.items() if of.enough}
    return {name for name, value in holm(judged).items() if value < 1 - CONFIDENCE}


def best_of(k: int) -> float:
    """Expected maximum of k independent standard normal numbers.

    Example:
        >>> round(best_of(1), 3), round(best_of(2), 3), round(best_of(58), 2)
        (0.0, 0.564, 2.3)
    """
    if k < 1:
        raise ValueError(f"a maximum needs at least one number, got {k}")
    normal = NormalDist()
    step = 16 / STEPS
    points = (-8 + (i + 0.5) * step for i in range(STEPS))
    return k * step * math.fsum(x * normal.pdf(x) * normal.cdf(x) ** (k - 1) for x in points)


def best_by_chance(gains: Sequence[Comparison]) -> float | None:
    """Expected gain of the best of some rows over their common baseline if none had an effect.

    The rows share the baseline, so half the variance of a gain is common to all. A row's own variance is unsure, so the
    median over the rows stands for all of them.

    Returns:
        None for fewer than two gains with a spread.
    """
    known = [gain for gain in gains if not math.isnan(gain.error)]
    if len(known) < 2:
        return None
    # the median of chi-squared / freedom is below 1 (Wilson and Hilferty)
    squares = [gain.error**2 / (1 - 2 / (9 * max(gain.freedom, 1.0))) ** 3 for gain in known]
    return best_of(len(known)) * math.sqrt(median(squares) / 2)
