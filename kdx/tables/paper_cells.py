"""A published table beside ours: what is printed, what we measured, and what may be said of the difference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kdx.runs.results import Protocol
from kdx.tables.statistics import CONFIDENCE, ENOUGH, Comparison, Summary, t_quantile, welch

Provenance = Literal["read", "secondary", "memory", "measured"]
Unit = Literal["percent", "plain", "errors", "count"]
Verdict = Literal["agrees", "higher", "lower"]
PROVENANCE = {
    "read": "read in the source",
    "secondary": "taken from somebody else's table",
    "memory": "from memory, not checked against the paper",
    "measured": "not published: an independent measurement",
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the runs of a table are.

    Attributes:
        overrides: On top of those of the table.
        seeds: Seeds of each cell.
        paper: Whether this is the scale of the published numbers; only then are they judged by.
    """

    overrides: Sequence[str]
    seeds: Sequence[int]
    paper: bool


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a column measures where it is not what the others do."""

    metric: str
    unit: Unit


@dataclass(frozen=True, kw_only=True)
class Reported:
    """Numbers that somebody printed.

    Attributes:
        source: Where they stand.
        provenance: How they came here: read in the source, through somebody else's table, from memory, or
            measured independently where nothing is published.
        protocol: Which epoch's numbers they are.
        runs: How many runs each is a mean of; None where the source does not say.
        values: Numbers by row, in the order of the columns; None where none is printed.
        std: Standard deviations in the same order, for rows that have them.
    """

    source: str
    provenance: Provenance
    protocol: Literal["last", "best_on_test", "val_selected", "unstated"]
    runs: int | None
    values: Mapping[str, Sequence[float | None]]
    std: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Printed:
    """One number that somebody printed.

    Attributes:
        value: In the table's unit.
        std: Its standard deviation over runs; None where none is printed.
        source: Key of its source.
        of: What its source says of all its numbers.
    """

    value: float
    std: float | None
    source: str
    of: Reported


@dataclass(frozen=True)
class Cell:
    """One place of the table.

    Attributes:
        row: Row.
        column: Column.
        metric: What is measured.
        unit: Of all its numbers.
        printed: The published number; None where there is none.
        ours: Our numbers' summary; None where nothing is run.
        wanted: Seeds that the scale asks for.
        hole: Why numbers of ours are missing; empty where none is.
        gain: Against the baseline row; None where there is none.
        difference: Ours less the published; None where the two must not be compared.
        margin: What the difference must exceed, by 95 %, to be one; None where that is not known.
        verdict: What may be said; None where nothing may.
    """

    row: str
    column: str
    metric: str
    unit: Unit
    printed: Printed | None
    ours: Summary | None
    wanted: int
    hole: str
    gain: Comparison | None
    difference: float | None
    margin: float | None
    verdict: Verdict | None


@dataclass(frozen=True)
class Sheet:
    """A table to be written down.

    Attributes:
        title: Heading; it says where the scale is not the paper's.
        paper: Citation.
        protocol: Which epoch's numbers ours are.
        baseline: Row that gains are measured against; None for none.
        columns: In order.
        cells: By column, in the order of the rows.
        sources: By the key that cells name them with.
        notes: What stands below.
    """

    title: str
    paper: str
    protocol: Protocol
    baseline: str | None
    columns: Sequence[str]
    cells: Mapping[str, Sequence[Cell]]
    sources: Mapping[str, Reported]
    notes: Sequence[str]


def judge(
    ours: Summary | None, printed: Printed | None, protocol: Protocol, at_scale: bool
) -> tuple[float | None, float | None, Verdict | None]:
    """What the difference between our mean and a published number says.

    Numbers of another protocol, or of a shorter training, are not compared at all. The margin is half the 95 %
    interval of a difference of two means: Welch's where the source prints its deviation and counts its runs.
    A source that prints no deviation is taken to spread as ours does, one that does not count its runs to have
    one; then only ours says how sure the spread is (n - 1 degrees of freedom).

    Returns:
        Difference, margin and verdict; None for each that cannot be told.
    """
    if ours is None or printed is None or not at_scale or printed.of.protocol != protocol:
        return None, None, None
    difference = ours.mean - printed.value
    if ours.n < ENOUGH:
        return difference, None, None
    margin = _margin(ours, printed.value, printed.std, printed.of.runs)
    if abs(difference) <= margin:
        return difference, margin, "agrees"
    return difference, margin, "higher" if difference > 0 else "lower"


def _margin(ours: Summary, value: float, std: float | None, runs: int | None) -> float:
    if std is not None and runs is not None and runs > 1:
        _, (low, high) = welch(ours, Summary(value, std, runs))
        return (high - low) / 2
    spread = ours.std if std is None else std
    variance = ours.std**2 / ours.n + spread**2 / (runs or 1)
    return t_quantile((1 + CONFIDENCE) / 2, ours.n - 1) * math.sqrt(variance)


def convert(value: float, unit: Unit, tested: int) -> float:
    """A measurement in a table's unit.

    Args:
        value: As runs record it.
        unit: "errors" counts the test examples that a fraction leaves wrong, "count" those that it is a share of.
        tested: Test examples.
    """
    if unit == "percent":
        return 100 * value
    if unit == "errors":
        value = 1 - value
    return round(value * tested, 6) if unit in ("errors", "count") else value
