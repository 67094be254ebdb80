"""Notes on the runs of a table: population, protocol, data, hardware and code."""

from collections.abc import Mapping, Sequence

from kdx.runs.results import Protocol, Result
from kdx.tables.footnotes import PROTOCOLS, footnotes
from kdx.tables.populations import population
from kdx.tables.statistics import ENOUGH


def run_notes(results: Mapping[str, Mapping[int, Result]], protocol: Protocol, varied: Sequence[str]) -> list[str]:
    """Notes on the runs of a table, at least one.

    Args:
        results: By row and seed.
        protocol: The epoch of the numbers.
        varied: Keys of the config that change from seed to seed.
    """
    runs = [r.data for of in results.values() for r in of.values()]
    own = [sorted({int(r.data["seed"]) for r in of.values()}) for of in results.values() if of]
    alike = [seeds for seeds in own if seeds == max(own, key=len)]
    seeds = str(max(own, key=len)) if len(alike) > 1 or len(own) == 1 else ""
    by_place = any(list(of) != [int(r.data["seed"]) for r in of.values()] for of in results.values())
    of = f" of seeds {seeds}" if seeds else ""
    notes = [
        f"rows: mean ± sample standard deviation (sd) over n runs{of}; numbers of {PROTOCOLS[protocol]}",
        population(results, varied),
    ]
    if by_place:
        notes.append(
            "rows with seeds of their own are paired by place: run k of a row descends from the k-th first run"
        )
    notes += footnotes(runs)
    if any(0 < len(of) < ENOUGH for of in results.values()):
        notes.append(f"fewer than {ENOUGH} seeds: the spread says little")
    return notes
