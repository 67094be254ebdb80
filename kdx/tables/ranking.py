"""Whether two lists of numbers rank the same methods alike: Kendall's tau and its interval over seeds."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

from kdx.tables.statistics import CONFIDENCE, NONE, Interval

DRAWS = 2000  # resamples of the seeds
EXACT = 10  # rows up to which the p-value is exact


def kendall_tau(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Kendall's tau-b over the rows that both have: 1 for the same order, -1 for the reverse; ties count half.

    Raises:
        ValueError: Fewer than two rows in common, or one side has a single value.

    References:
        M. G. Kendall. The treatment of ties in ranking problems. Biometrika, 1945.

    Example:
        >>> kendall_tau({"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 30, "c": 20})
        0.3333333333333333
    """
    rows = [row for row in ours if row in theirs]
    if len(rows) < 2:
        raise ValueError(f"a ranking needs two rows in common, found {len(rows)}")
    pairs = [(_sign(ours[a] - ours[b]), _sign(theirs[a] - theirs[b])) for a, b in combinations(rows, 2)]
    untied = [sum(side[i] != 0 for side in pairs) for i in (0, 1)]
    if not all(untied):
        raise ValueError("all rows have the same value, so they have no order")
    return sum(a * b for a, b in pairs) / math.sqrt(untied[0] * untied[1])


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


@dataclass(frozen=True)
class Agreement:
    """How far two rankings agree.

    Attributes:
        tau: Kendall's tau-b.
        interval: 95 % interval over our seeds, for these rows and published numbers; NaN for fewer than two seeds.
        p: Two-sided p-value of no association: exact over all orders without ties, else the normal approximation.
        rows: The compared rows.
        moved: Rows by the places that they move from the published rank to ours, the largest move first; a positive
            number is a better rank with us.
    """

    tau: float
    interval: Interval
    p: float
    rows: Sequence[str]
    moved: Mapping[str, int]


def agreement(values: Mapping[str, Mapping[int, float]], published: Mapping[str, float]) -> Agreement:
    """Agreement of our means with published numbers.

    The interval resamples the seeds, the same ones for all rows (a bootstrap of whole repetitions, percentiles), since
    rows of a seed share the data order.

    Args:
        values: Our numbers by row and seed; higher is better. Rows without a published number are left out.
        published: Published numbers by row; higher is better.

    Raises:
        ValueError: See `kendall_tau`.
    """
    rows = [row for row in values if row in published and values[row]]
    theirs = {row: published[row] for row in rows}
    means = {row: math.fsum(values[row].values()) / len(values[row]) for row in rows}
    tau = kendall_tau(means, theirs)
    seeds = sorted(set.intersection(*(set(values[row]) for row in rows)))
    interval = NONE
    if len(seeds) > 1:
        draws, taus = random.Random(0), []
        for _ in range(DRAWS):
            drawn = draws.choices(seeds, k=len(seeds))
            try:
                taus.append(kendall_tau({row: math.fsum(values[row][s] for s in drawn) for row in rows}, theirs))
            except ValueError:
                continue  # all sums of a draw are equal
        taus.sort()
        tail = (1 - CONFIDENCE) / 2
        if taus:
            interval = taus[int(tail * len(taus))], taus[min(len(taus) - 1, int((1 - tail) * len(taus)))]
    ranks = [{row: i for i, row in enumerate(sorted(rows, key=lambda r: -of[r]))} for of in (theirs, means)]
    moves = {row: ranks[0][row] - ranks[1][row] for row in rows}
    return Agreement(tau, interval, tau_p(tau, len(rows)), rows, dict(sorted(moves.items(), key=lambda m: -abs(m[1]))))


def tau_p(tau: float, n: int) -> float:
    """Two-sided p-value of Kendall's tau of n rows without an association.

    Exact from the numbers of orders with each number of inversions, up to `EXACT` rows; else the normal approximation.

    Example:
        >>> round(tau_p(1.0, 5), 4), round(tau_p(0.0, 5), 4)  # 2 of 120 orders; all
        (0.0167, 1.0)
    """
    if n > EXACT:
        sd = math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
        return 2 * (1 - NormalDist().cdf(abs(tau) / sd))
    counts = [1]
    for size in range(2, n + 1):  # Mahonian numbers
        wider = [0] * (len(counts) + size - 1)
        for i, count in enumerate(counts):
            for shift in range(size):
                wider[i + shift] += count
        counts = wider
    pairs = n * (n - 1) // 2
    far = sum(c for i, c in enumerate(counts) if abs(1 - 2 * i / pairs) >= abs(tau) - 1e-12)
    return min(1.0, far / math.factorial(n))


def ranking_note(name: str, found: Agreement) -> str:
    """A sentence about an agreement, as computed.

    Example:
        >>> note = ranking_note("T-S", Agreement(0.5, (0.2, 0.8), 0.04, ["a", "b"], {"a": 1, "b": -1}))
        >>> note.partition(": ")[2]
        '0.50 [0.20, 0.80] over seeds, p 0.040; a moves +1, b moves -1'
    """
    low, high = found.interval
    ends = " (one seed, no interval)" if math.isnan(low) else f" [{low:.2f}, {high:.2f}] over seeds"
    moves = [f"{row} moves {places:+d}" for row, places in found.moved.items() if places]
    return (
        f"Kendall's tau with the published numbers of {name} over {len(found.rows)} rows: {found.tau:.2f}{ends}, "
        f"p {found.p:.3f}; {', '.join(moves[:4]) or 'the order is the same'}"
    )
