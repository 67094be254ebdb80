"""Intervals that hold at every number of seeds at once, so that seeds may be added until a difference is decided.

An interval of Student's t holds at one number of seeds that is fixed in advance. A study that computes it after each
seed and stops at the first interval without zero claims an effect that is not there in far more than 5 % of the cases.
The intervals here are a confidence sequence: with a probability of 95 % all of them hold the true difference, so that a
study may stop at any seed and for any reason.

The differences are taken as normal with unknown mean and deviation. Their likelihood ratio of "effect" to "no effect",
mixed over standardized effects with a normal prior and over deviations with the invariant prior 1 / sigma, is a
martingale of expectation 1 without an effect. By Ville's inequality it reaches 1 / alpha with a probability of at most
alpha. The differences that it does not reject are the interval.

References:
    T. L. Lai. On confidence sequences. Annals of Statistics, 1976.
    H. Wang, A. Ramdas. Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance. 2023,
    theorem on the mixture of scale-invariant likelihood ratios. https://arxiv.org/abs/2310.03722
"""

import math
from dataclasses import dataclass

from kdx.core.errors import UserError
from kdx.core.ranges import PositiveInt

# Standard deviation of the prior on the effect over the deviation of a single difference. Any value is valid; this one
# makes the intervals of three to ten seeds narrow, where effects of one to ten deviations are decided.
PRIOR = 4.0
FIRST = 3  # seeds before the first decision


def e_value(mean: float, std: float, n: int) -> float:
    """Evidence of n differences against a true difference of zero: the mixed likelihood ratio.

    Example:
        >>> e_value(0.0, 1.0, 5) < 1, e_value(1.0, 0.0, 1)
        (True, 1.0)
        >>> round(e_value(1.0, 0.0, 3), 9)  # ((n + c) / c) ** ((n - 1) / 2) for n equal differences, c = 1 / 16
        49.0
    """
    squares = (n - 1) * std**2 + n * mean**2
    if n < 2 or squares == 0:
        return 1.0
    shrunk = PRIOR**-2 / (n + PRIOR**-2)
    rest = (n - 1) * std**2 + n * mean**2 * shrunk
    return math.exp(0.5 * math.log(shrunk) + n / 2 * math.log(squares / rest))


def sequence_half_width(alpha: float, std: float, n: int) -> float:
    """Half the width of the interval of n differences; infinite while no evidence could be enough.

    Args:
        alpha: Probability with which some interval of the sequence fails.
        std: Sample standard deviation of the differences.
        n: Number of differences.

    Example:
        >>> round(sequence_half_width(0.05, 1.0, 2), 1), round(sequence_half_width(0.05, 1.0, 10), 2)
        (inf, 1.36)
    """
    if n < 2:
        return math.inf
    shrunk = PRIOR**-2 / (n + PRIOR**-2)
    bound = (alpha * math.sqrt(shrunk)) ** (-2 / n)
    if bound * shrunk >= 1:
        return math.inf
    return std * math.sqrt((n - 1) * (bound - 1) / (1 - bound * shrunk) / n)


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """When a comparison has enough seeds.

    Attributes:
        width: Half width of the interval, in the unit that the table shows, below which a comparison ends without a
            verdict; None for none.
        max: Number of seeds at which it ends in any case.
        holm: Whether a difference must also survive Holm's correction over the rows before its row ends. Else rows end
            that exclude zero alone, and of three rows none with three seeds can survive.
    """

    width: float | None
    max: PositiveInt
    holm: bool

    def __post_init__(self):
        if self.max < FIRST:
            raise UserError(f"seeds.max={self.max}: the first decision is made after {FIRST} seeds")
        if self.width is not None and not self.width > 0:
            raise UserError(f"seeds.width={self.width} must be above 0, or null")

    def reason(self, interval: tuple[float, float], survives: bool, scale: float, n: int) -> str | None:
        """Why a comparison ends; None while it goes on.

        Args:
            interval: Of the difference.
            survives: Whether the difference survives Holm's correction.
            scale: Factor from the interval's numbers to the unit of `width`.
            n: Number of seeds.

        Example:
            >>> rule = Seeds(width=0.5, max=9, holm=True)
            >>> rule.reason((0.001, 0.02), True, 100, 3), rule.reason((0.001, 0.02), False, 100, 3)
            ('excludes zero', None)
            >>> rule.reason((-0.004, 0.004), False, 100, 4), rule.reason((-0.1, 0.1), False, 100, 9)
            ('half width below 0.5', '9 seeds')
        """
        low, high = interval
        if n < FIRST:
            return None
        if (low > 0 or high < 0) and (survives or not self.holm):
            return "excludes zero"
        if self.width is not None and (high - low) / 2 * scale < self.width:
            return f"half width below {self.width:g}"
        return f"{self.max} seeds" if n >= self.max else None
