"""Student's t distribution, and the sum of one with an independent normal variable."""

import math
from statistics import NormalDist

POINTS = 240  # of the integral over the chi-squared variable
TAIL = 40.0  # the integral leaves out a mass below exp(-TAIL / 2)


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


def two_sided(distance: float, error: float, freedom: float, normal: float) -> float:
    """P(|error T + normal Z| > distance), for T of Student's t and an independent standard normal Z.

    With `normal` 0 it is the p-value of a t test. The sum is that of Behrens and Fisher, with one side's error known.

    Args:
        distance: Not negative.
        error: Standard error that is estimated with `freedom` degrees of freedom; not negative.
        freedom: Degrees of freedom, above 0.
        normal: Standard error that is known, or estimated from many examples; not negative.

    Returns:
        A probability; 1 for no distance, 0 for a distance without any error.

    References:
        R. A. Fisher. The fiducial argument in statistical inference. Annals of Eugenics, 1935.

    Example:
        >>> round(two_sided(12.706, 1.0, 1, 0.0), 4), round(two_sided(1.96, 0.0, 1, 1.0), 4)
        (0.05, 0.05)
    """
    if distance <= 0:
        return 1.0
    if error == 0:
        return math.erfc(distance / (normal * math.sqrt(2))) if normal else 0.0
    if normal == 0:
        return max(0.0, 2 * (1 - _t_below(distance / error, freedom)))
    # T is Z / sqrt(g) with g = chi-squared / freedom: given g, the sum is normal. Trapezoids over log g.
    width = 9 * math.sqrt(2 / freedom)
    low, high = -TAIL / freedom - width, width
    total = mass = 0.0
    for i in range(POINTS + 1):
        u = low + (high - low) * i / POINTS
        weight = math.exp(freedom / 2 * (u + 1 - math.exp(min(u, 500.0))))
        mass += weight
        total += weight * math.erfc(distance / math.sqrt(2 * (error**2 * math.exp(-u) + normal**2)))
    return total / mass


def half_width(alpha: float, error: float, freedom: float, normal: float) -> float:
    """The distance whose `two_sided` probability is alpha: half of an interval's width.

    Example:
        >>> round(half_width(0.05, 1.0, 2, 0.0), 3), round(half_width(0.05, 0.0, 2, 1.0), 2)
        (4.303, 1.96)
    """
    if normal == 0:
        return error * t_quantile(1 - alpha / 2, freedom)
    # the longer side alone is a lower bound, both together in quadrature are an upper one (Banerjee, 1960)
    t, z = error * t_quantile(1 - alpha / 2, freedom) if error else 0.0, normal * NormalDist().inv_cdf(1 - alpha / 2)
    low, high = max(t, z) * 0.999, math.hypot(t, z) * 1.001
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, error, freedom, normal) > alpha else (low, middle)
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
