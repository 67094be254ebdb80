"""How many seeds a claim needs, from the spread of the differences seen so far."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from kdx.tables.sequential import sequence_half_width
from kdx.tables.statistics import CONFIDENCE
from kdx.tables.student_t import t_quantile

POWER = 0.8  # probability of the claim, if the difference is as large as assumed
MOST = 1000  # seeds beyond which no number is given


@dataclass(frozen=True)
class Needed:
    """Seeds that a claim needs; None for more than `MOST`.

    Attributes:
        fixed: If their number is fixed in advance, with Student's interval.
        sequence: If seeds are added until the difference is decided: with so many the claim has been made with a
            probability of 80 %, often with fewer.
    """

    fixed: int | None
    sequence: int | None


def seeds_needed(gain: float, std: float, comparisons: int = 1) -> Needed:
    """Seeds with which a difference is claimed with a probability of 80 %.

    Args:
        gain: The true difference.
        std: Standard deviation of a single difference.
        comparisons: Number of comparisons that Holm's correction counts; the first claim must pass 5 % over it.

    Raises:
        ValueError: The gain is 0 or the deviation is negative.

    Example:
        >>> seeds_needed(1.0, 0.5), seeds_needed(1.0, 0.5, comparisons=10)
        (Needed(fixed=5, sequence=8), Needed(fixed=7, sequence=11))
    """
    if gain == 0 or std < 0:
        raise ValueError(f"a claim needs a difference other than 0 and a deviation, got {gain} and {std}")
    alpha = (1 - CONFIDENCE) / comparisons

    def fixed(n: int) -> float:
        return t_quantile(1 - alpha / 2, n - 1) * std / math.sqrt(n)

    def sequence(n: int) -> float:
        return sequence_half_width(alpha, std, n)

    return Needed(*(_first(abs(gain), std, half) for half in (fixed, sequence)))


def _first(gain: float, std: float, half_width: Callable[[int], float]) -> int | None:
    """The first number of seeds whose mean exceeds the half width with the wanted probability."""
    z = NormalDist().inv_cdf(POWER)
    for n in range(3, MOST + 1):
        if gain >= half_width(n) + z * std / math.sqrt(n):
            return n
    return None


def spread_interval(std: float, n: int) -> tuple[float, float]:
    """95 % interval of a standard deviation that is estimated from n numbers; NaN for one number.

    Example:
        >>> low, high = spread_interval(1.0, 3)
        >>> round(low, 2), round(high, 2)
        (0.52, 6.28)
    """
    if n < 2:
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    return std * math.sqrt((n - 1) / _chi2(1 - tail, n - 1)), std * math.sqrt((n - 1) / _chi2(tail, n - 1))


def _chi2(probability: float, freedom: int) -> float:
    """Quantile of the chi-squared distribution, by bisection."""
    low, high = 0.0, freedom + 20.0 * math.sqrt(2 * freedom) + 40
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _chi2_below(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _chi2_below(x: float, freedom: int) -> float:
    """P(chi-squared < x), by the series of the incomplete gamma function (Abramowitz and Stegun 6.5.29)."""
    if x <= 0:
        return 0.0
    a, half = freedom / 2, x / 2
    term = total = 1 / a
    for k in range(1, 2000):
        term *= half / (a + k)
        total += term
        if term < 1e-16 * total:
            break
    return min(1.0, total * math.exp(-half + a * math.log(half) - math.lgamma(a)))
