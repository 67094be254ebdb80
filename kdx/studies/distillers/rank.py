"""Rank correlation of the fitness with the final metric, with its interval."""

from collections.abc import Sequence
from random import Random

DRAWS = 1000

Pairs = Sequence[tuple[float, float]]


def kendall(pairs: Pairs) -> float:
    """Kendall's tau-b: 1 where both orders agree, -1 where one is the other reversed, NaN where a side is constant.

    Args:
        pairs: Two numbers of each item.

    References:
        Kendall, "The Treatment of Ties in Ranking Problems", 1945.

    Example:
        >>> kendall([(1, 10), (2, 20), (3, 30)]), kendall([(1, 3), (2, 2), (3, 1)])
        (1.0, -1.0)
    """
    agree, ties = 0, [0, 0]
    count = len(pairs)
    for i in range(count):
        for j in range(i):
            x, y = (_sign(pairs[i][side] - pairs[j][side]) for side in range(2))
            agree += x * y
            ties[0] += x == 0
            ties[1] += y == 0
    whole = count * (count - 1) // 2
    scale = ((whole - ties[0]) * (whole - ties[1])) ** 0.5
    return agree / scale if scale else float("nan")


def interval(groups: Sequence[Pairs], seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the mean tau of some groups: items are drawn again within each group.

    Args:
        groups: Items of each group.
        seed: Seed of the draws.
    """
    rng, means = Random(seed), []
    for _ in range(DRAWS):
        taus = [kendall(rng.choices(pairs, k=len(pairs))) for pairs in groups]
        known = [tau for tau in taus if tau == tau]
        if known:
            means.append(sum(known) / len(known))
    means.sort()
    if not means:
        return float("nan"), float("nan")
    return means[int(0.025 * len(means))], means[min(len(means) - 1, int(0.975 * len(means)))]


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
