"""Adds seeds to the rows of a study until each difference to the baseline is decided (`seeds=auto`)."""

from collections.abc import Callable, Mapping, Sequence

from kdx.runs.results import Protocol, Result
from kdx.tables.metrics import Shown
from kdx.tables.multiplicity import holm
from kdx.tables.sequential import FIRST, Seeds
from kdx.tables.statistics import CONFIDENCE, Comparison
from kdx.tables.table import difference

Key = tuple[str, int]  # row and seed
BASELINE = "baseline"


def nth_seed(listed: Sequence[int], place: int) -> int:
    """The seed at a place: the listed ones, then the numbers after the largest of them.

    Example:
        >>> [nth_seed([0, 4], place) for place in range(4)]
        [0, 4, 5, 6]
    """
    return listed[place] if place < len(listed) else max(listed) + 1 + place - len(listed)


def run_until_decided(
    rows: Sequence[str],
    baseline: str,
    listed: Sequence[int],
    rule: Seeds,
    metric: str,
    protocol: Protocol,
    run: Callable[[Sequence[Key]], Mapping[Key, Result]],
) -> tuple[dict[str, list[int]], dict[Key, Result], dict[str, str]]:
    """Run the first seeds of all rows, then one more of each row that is not decided, and of the baseline.

    A row ends at its first decision, so that the same command finds the same seeds again. A row without the result of a
    seed ends, too.

    Args:
        rows: With the baseline.
        baseline: The row that the others are compared with.
        listed: The study's seeds, which come first.
        rule: When a comparison ends.
        metric, protocol: The compared number.
        run: Trains what is missing; a run without a result is left out of its answer.

    Returns:
        Seeds of each row, results, and why each row ended.
    """
    seeds = {row: [nth_seed(listed, place) for place in range(FIRST)] for row in rows}
    found: dict[Key, Result] = {}
    tried: set[Key] = set()
    ended = {baseline: BASELINE}
    while True:
        wanted = [key for row in rows for seed in seeds[row] if (key := (row, seed)) not in tried]
        found |= run(wanted)
        tried |= set(wanted)
        differences: dict[str, Comparison] = {}
        for row in rows:
            if row == baseline:
                continue
            try:
                differences[row] = _difference(row, baseline, seeds[row], found, metric, protocol)
            except LookupError as error:
                ended.setdefault(row, str(error.args[0]))
        # a row that cannot be compared counts as one that differs by chance
        kept = holm({row: differences[row].p if row in differences else 1.0 for row in rows if row != baseline})
        scale = Shown(list(found.values()))[metric].scale
        for row, of in differences.items():
            why = rule.reason(of.interval, kept[row] < 1 - CONFIDENCE, scale, of.gain.n)
            if why is not None:
                ended.setdefault(row, why)
        left = [row for row in rows if row not in ended]
        if not left:
            return seeds, found, ended
        for row in left:
            seeds[row].append(nth_seed(listed, len(seeds[row])))
        if len(seeds[baseline]) < len(seeds[left[0]]):
            seeds[baseline].append(nth_seed(listed, len(seeds[baseline])))


def _difference(
    row: str, baseline: str, seeds: Sequence[int], found: Mapping[Key, Result], metric: str, protocol: Protocol
) -> Comparison:
    """The difference of a row to the baseline. Raises LookupError with the reason where there is none."""
    ours, theirs = ({seed: found[of, seed] for seed in seeds if (of, seed) in found} for of in (row, baseline))
    if len(ours) < len(seeds) or len(theirs) < len(seeds):
        raise LookupError("a run is missing")
    if any(result.metric(metric, protocol) is None for result in (*ours.values(), *theirs.values())):
        raise LookupError(f"no {metric}")
    return difference(ours, theirs, metric, protocol, anytime=True)
