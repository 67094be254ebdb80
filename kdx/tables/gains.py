"""Differences to a baseline row, as people read them."""

import math
from collections.abc import Mapping, Sequence

from kdx.core.metric import Metric, digits_of, fixed
from kdx.tables.multiplicity import best_by_chance, survivors
from kdx.tables.statistics import CONFIDENCE, Comparison, Interval

GAIN = "gain"
EXAMPLES = "gain with examples"
PAIR = 2
WITH_EXAMPLES = "[over seeds and examples]"


def show_gain(gain: Comparison, metric: Metric) -> str:
    """ "+0.75 [-0.67, +2.17]": the difference and its interval over seeds; without it for single runs."""
    return f"{signed(gain.gain.mean, gain.interval, metric)} {show_interval(gain.interval, metric)}".rstrip()


def show_whole(gain: Comparison, metric: Metric) -> str:
    """ "[-1.12, +2.62]": the interval over seeds and examples; "-" if unknown."""
    return "-" if gain.whole is None else show_interval(gain.whole, metric)


def show_interval(interval: Interval, metric: Metric) -> str:
    """ "[-0.67, +2.17]"; empty for an unknown interval."""
    if math.isnan(interval[0]):
        return ""
    return f"[{', '.join(signed(end, interval, metric) for end in interval)}]"


def signed(value: float, interval: Interval, metric: Metric) -> str:
    """A number with its sign and three digits of its uncertainty, so that it is the difference of the printed means."""
    digits = min(metric.digits, digits_of((interval[1] - interval[0]) / 2 * metric.scale, metric.digits) + 1)
    return fixed(value, digits, metric.scale, sign=True)


def gain_notes(gains: Mapping[str, Comparison], baseline: str | None, main: Metric, told: bool) -> list[str]:
    """Notes on the differences of a table.

    Args:
        gains: By row.
        baseline: Their reference row.
        main: The metric.
        told: Whether to write the differences themselves, for a table without a column for them.
    """
    if not gains:
        return []
    kept = survivors(gains)
    notes = []
    if told:
        for row, gain in gains.items():
            whole = "" if gain.whole is None else f", {show_whole(gain, main)} over seeds and examples"
            verdict = "" if not gain.enough else "; survives Holm" if row in kept else "; not distinguishable"
            if gain.significant and row not in kept:
                verdict = "; distinguishable alone, not after Holm"
            notes.append(f"{row} against {baseline}: {show_gain(gain, main)} {main.heading} over seeds{whole}{verdict}")
    return [*notes, *legend(list(gains.values()), main)]


def legend(gains: Sequence[Comparison], metric: Metric | None) -> list[str]:
    """How to read a table's differences: their intervals, their number, and the best of them by chance.

    Args:
        gains: The differences.
        metric: Their metric; None for several metrics, whose best by chance is not defined.
    """
    known = [gain for gain in gains if not math.isnan(gain.error)]
    if not known:
        return ["differences of single runs: no interval and no verdict"]
    paired, whole = sum(gain.paired for gain in known), [gain for gain in known if gain.whole is not None]
    how = {len(known): "paired over seeds", 0: "Welch's, not paired"}.get(paired, "paired where the seeds match")
    grain = max(gain.grain for gain in known)
    line = (
        f"differences have intervals of {100 * CONFIDENCE:.0f} %, {how}; over seeds: for this test set, not for others"
    )
    if any(min(gain.left.n, gain.right.n) == PAIR and not gain.anytime for gain in known):
        # a spread of two numbers is often below that of rounding to the grain, which is its least
        line += "; with two seeds they cover 98 to 100 %"
    if any(gain.anytime for gain in known):
        line += (
            "; seeds were added until each was decided, so intervals are of a confidence sequence and p-values anytime-"
            "valid, which hold wherever one stops (Lai 1976; Wang and Ramdas 2023, mixture of t likelihood ratios)"
        )
    if whole:
        line += "; over seeds and examples: the test set counts as a sample (covers 95 to 98 % with 2 to 5 seeds)"
    size = f", {fixed(grain, metric.digits, metric.scale)} {metric.heading}".rstrip() if metric is not None else ""
    notes = [f"{line}; each side is at least the grain of the numbers{size}"]
    judged = [gain for gain in known if gain.enough]
    if not judged:
        return [*notes, "fewer than three seeds: no verdict"]
    alone, kept, k = sum(gain.significant for gain in judged), len(survivors(dict(enumerate(gains)))), len(judged)
    rests = "seeds and examples" if len(whole) == len(known) else "seeds alone"
    if 0 < len(whole) < len(known):
        rests = "seeds and examples where predictions are kept"
    line = (
        f"{k} comparison{'s' if k > 1 else ''}, judged over {rests}: {alone} differ{'s' if alone == 1 else ''} from "
        f"zero alone, {kept} after Holm's correction (marked *)"
    )
    # of differences with as many seeds alone
    chance = None if metric is None or any(gain.anytime for gain in judged) else best_by_chance(judged)
    if metric is not None and chance is not None:
        shown = f"{fixed(chance, metric.digits, metric.scale)} {metric.heading}".rstrip()
        line += f"; by chance the best of {k} without effect would differ by {shown}"
    return [*notes, line]
