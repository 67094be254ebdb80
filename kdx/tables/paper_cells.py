"""Cells of a reproduced table: published number, our number, and the verdict on the difference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kdx.runs.results import Protocol
from kdx.tables.multiplicity import survivors
from kdx.tables.statistics import CONFIDENCE, ENOUGH, Comparison, Summary, welch
from kdx.tables.student_t import half_width, t_quantile

Provenance = Literal["read", "secondary", "memory", "measured"]
Unit = Literal["percent", "plain", "errors", "count"]
Verdict = Literal["not distinguishable", "higher", "lower"]
UNITS: Mapping[Unit, str] = {"percent": "%", "plain": "", "errors": "test errors", "count": "test examples"}
DIGITS: Mapping[Unit, int] = {"percent": 2, "plain": 4, "errors": 1, "count": 1}
# the last digit that published numbers are printed with; of plain numbers it varies
GRAIN: Mapping[Unit, float] = {"percent": 0.01, "plain": 0.0, "errors": 1.0, "count": 1.0}
PROVENANCE = {
    "read": "read in the source",
    "secondary": "taken from somebody else's table",
    "memory": "from memory, not checked against the paper",
    "measured": "not published: an independent measurement",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """The measure of a column that differs from the table's default."""

    metric: str
    unit: Unit


@dataclass(frozen=True, kw_only=True)
class Reported:
    """Published numbers of one source.

    Attributes:
        source: Citation.
        provenance: How they were obtained: read in the source, through another paper's table, from memory, or
            measured independently where nothing is published.
        protocol: The epoch of the results.
        runs: Number of runs per mean; None if not stated.
        values: Numbers by row, in the order of the columns; None if not published.
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
    """One published number.

    Attributes:
        value: In the table's unit.
        std: Its standard deviation over runs; None if not published.
        source: Key of its source.
        of: The published numbers of that source.
    """

    value: float
    std: float | None
    source: str
    of: Reported


@dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
        row: Row.
        column: Column.
        metric: The metric.
        unit: Unit of all numbers.
        printed: The published number; None if there is none.
        ours: Summary of our numbers; None if nothing has run.
        wanted: Number of seeds of the scale.
        hole: Why our numbers are missing; empty if they are not.
        gain: Gain over the baseline row; None if there is none.
        difference: Our mean minus the published number; None if they are not comparable.
        margin: Half width of the 95 % interval of the difference over seeds; None if unknown.
        verdict: Verdict on the difference; None if there is none.
        values: Our numbers by seed.
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
    values: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """A reproduced table.

    Attributes:
        title: Heading; names the scale if it is not the paper's.
        paper: Citation.
        protocol: The epoch of our results.
        baseline: Reference row for gains; None for none.
        columns: The columns, in order.
        cells: Cells by column, in the order of the rows.
        sources: Sources by key.
        notes: Notes below the table.
        arrows: By column, an arrow towards better numbers.
    """

    title: str
    paper: str
    protocol: Protocol
    baseline: str | None
    columns: Sequence[str]
    cells: Mapping[str, Sequence[Cell]]
    sources: Mapping[str, Reported]
    notes: Sequence[str]
    arrows: Mapping[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, dict[str, Mapping[int, float]]]:
        """Our numbers by row, column and seed."""
        rows = dict.fromkeys(cell.row for of in self.cells.values() for cell in of)
        return {r: {c: cell.values for c, of in self.cells.items() for cell in of if cell.row == r} for r in rows}

    @property
    def kept(self) -> set[tuple[str, str]]:
        """Row and column of the gains that survive Holm's correction over the whole table."""
        gains = {(c.row, c.column): c.gain for of in self.cells.values() for c in of if c.gain is not None}
        return survivors(gains)


def judge(
    ours: Summary | None, printed: Printed | None, protocol: Protocol, at_scale: bool, grain: float = 0.0
) -> tuple[float | None, float | None, Verdict | None]:
    """Verdict on the difference between our mean and a published number.

    Numbers of another protocol, or of a shorter training, are not compared at all. The margin is half the 95 %
    interval of a difference of two means: Welch's where the source prints its deviation and counts its runs.
    A source that prints no deviation is taken to spread as ours does, one that does not count its runs to have
    one; then only ours says how sure the spread is (n - 1 degrees of freedom). The margin is over seeds: both numbers
    are of one test set. It is at least the grain, the last digit of the published number.

    Returns:
        Difference, margin and verdict; None for each that is unknown.
    """
    if ours is None or printed is None or not at_scale or printed.of.protocol != protocol:
        return None, None, None
    difference = ours.mean - printed.value
    if ours.n < ENOUGH:
        return difference, None, None
    margin = max(_margin(ours, printed.std, printed.of.runs), grain)
    if abs(difference) <= margin:
        return difference, margin, "not distinguishable"
    return difference, margin, "higher" if difference > 0 else "lower"


def _margin(ours: Summary, std: float | None, runs: int | None) -> float:
    if std is not None and runs is not None and runs > 1:
        return half_width(1 - CONFIDENCE, *welch(ours, Summary(0.0, std, runs)), 0.0)
    spread = ours.std if std is None else std
    variance = ours.std**2 / ours.n + spread**2 / (runs or 1)
    return t_quantile((1 + CONFIDENCE) / 2, ours.n - 1) * math.sqrt(variance)


def convert(value: float, unit: Unit, tested: int) -> float:
    """Convert a measurement to a table's unit.

    Args:
        value: The recorded value.
        unit: "errors" is the number of test examples that a fraction leaves wrong, "count" the number in the fraction.
        tested: Number of test examples.
    """
    if unit == "percent":
        return 100 * value
    if unit == "errors":
        value = 1 - value
    return round(value * tested, 6) if unit in ("errors", "count") else value
