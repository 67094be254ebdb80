"""Cost of a claim of a given size in a study, estimated from its finished runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.runs.results import Protocol, Result
from kdx.tables.metrics import Shown
from kdx.tables.planning import Needed, seeds_needed, spread_interval
from kdx.tables.table import difference


@dataclass(frozen=True)
class Planned:
    """The cost of a claim about one row.

    Attributes:
        row: The row.
        pairs: Number of seeds that row and baseline have in common.
        std: Standard deviation of their differences; NaN for fewer than two.
        spread: 95 % interval of it.
        alone: Seeds for this claim alone; None for fewer than two pairs.
        holm: Seeds if the claim is the first that Holm's correction over all rows must pass; likewise.
        seconds: Mean seconds of the row's runs.
    """

    row: str
    pairs: int
    std: float
    spread: tuple[float, float]
    alone: Needed | None
    holm: Needed | None
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The rows of a study, and the metric of the claim.

    Attributes:
        rows: The compared rows.
        baseline: Number of the baseline's runs, and their mean seconds.
        metric: Of the claim.
    """

    rows: Sequence[Planned]
    baseline: tuple[int, float]
    metric: Metric

    def hours(self) -> float:
        """Hours of the runs that are missing, one after the other, with `seeds=auto` after Holm's correction; infinite
        if a row needs more seeds than are searched."""
        total, longest = 0.0, 0
        for row in self.rows:
            if row.holm is None:
                continue
            if row.holm.sequence is None:
                return math.inf
            total += max(0, row.holm.sequence - row.pairs) * row.seconds
            longest = max(longest, row.holm.sequence)
        n, seconds = self.baseline
        return (total + max(0, longest - n) * seconds) / 3600


def plan(seen: Mapping[str, Mapping[int, Result]], baseline: str, metric: str, protocol: Protocol, gain: float) -> Plan:
    """The cost of claiming a gain for each row.

    Args:
        seen: Finished runs by row and seed.
        baseline: The row that the others are compared with.
        metric, protocol: The compared number.
        gain: The true difference to assume, in the unit that the table shows.

    Raises:
        UserError: The gain is 0, or no run is finished.
    """
    runs = [run for of in seen.values() for run in of.values()]
    if not runs:
        raise UserError("no run of this study is finished, so its spread is unknown; run three seeds first")
    if not gain:
        raise UserError("gain=0 needs infinitely many seeds; give the size of the difference, such as gain=0.3")
    form = Shown(runs)[metric]
    compared = [row for row in seen if row != baseline]
    rows = []
    for row in compared:
        common = [seed for seed in seen[row] if seed in seen[baseline]]
        std, alone, after = math.nan, None, None
        if len(common) > 1:
            ours, theirs = ({seed: of[seed] for seed in common} for of in (seen[row], seen[baseline]))
            of = difference(ours, theirs, metric, protocol, anytime=True)
            std = of.error * math.sqrt(of.gain.n)  # at least that of rounding
            alone = seeds_needed(gain / form.scale, std)
            after = seeds_needed(gain / form.scale, std, len(compared))
        seconds = [float(run.data["seconds"]) for run in (seen[row] or seen[baseline]).values()]
        mean = math.fsum(seconds) / len(seconds) if seconds else math.nan
        rows.append(Planned(row, len(common), std, spread_interval(std, len(common)), alone, after, mean))
    base = [float(run.data["seconds"]) for run in seen[baseline].values()]
    return Plan(rows, (len(base), math.fsum(base) / len(base) if base else math.nan), form)
