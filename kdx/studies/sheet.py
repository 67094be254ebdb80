"""Fills the sheet of a paper's table from its runs: each cell's numbers, gain, verdict, or the reason for a hole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdx.pool.task import Failure
from kdx.runs.results import Result
from kdx.studies.scales import Preset
from kdx.studies.table_runs import Place, TableRuns
from kdx.tables.captions import captions
from kdx.tables.examples import outcomes_of
from kdx.tables.metrics import Shown
from kdx.tables.paper_cells import GRAIN, Cell, Sheet, convert, judge
from kdx.tables.statistics import Comparison, Summary, compare

if TYPE_CHECKING:
    from kdx.studies.paper_table import PaperTable


@dataclass(frozen=True)
class _Found:
    """Results of the runs of a table.

    Attributes:
        table, preset: The table at one of its scales.
        values: Numbers in the unit of their column, by place and seed.
        runs: Results, likewise.
        holes: Reasons for missing numbers, by place.
    """

    table: "PaperTable"
    preset: Preset
    values: Mapping[Place, Mapping[int, float]]
    runs: Mapping[Place, Mapping[int, Result]]
    holes: Mapping[Place, str]

    def cell(self, row: str, column: str) -> Cell:
        table, place = self.table, (row, column)
        measure, numbers = table.measure(column), self.values.get(place) or {}
        ours = Summary.of(list(numbers.values())) if numbers else None
        printed = table.printed.get(place)
        difference, margin, verdict = judge(ours, printed, table.protocol, self.preset.paper, GRAIN[measure.unit])
        hole = self.holes.get(place, "" if ours else "not run")
        wanted = (ours.n if ours else 1) if row == table.teacher_row else len(self.preset.seeds)
        return Cell(
            *(row, column, measure.metric, measure.unit, printed, ours, wanted, hole),
            *(self._gain(row, column), difference, margin, verdict, numbers),
        )

    def _gain(self, row: str, column: str) -> Comparison | None:
        table, baseline = self.table, self.table.baseline
        if baseline is None or table.shows == "gain" or row in (baseline, table.teacher_row):
            return None
        ours, theirs = self.values.get((row, column)), self.values.get((baseline, column))
        if not ours or not theirs:
            return None
        measure = table.measure(column)
        own, base = (dict(self.runs.get(place, {})) for place in ((row, column), (baseline, column)))
        outcomes = outcomes_of(own, base, measure.metric, table.protocol)
        if outcomes is not None:
            # an outcome in the table's unit; counts lack the offset, which differences do not have
            tested = next(iter(own.values())).data["examples"]["test"]
            factor = convert(1.0, measure.unit, tested) - convert(0.0, measure.unit, tested)
            left, right = ({s: factor * each for s, each in of.items()} for of in outcomes)
            outcomes = left, right
        return compare(ours, theirs, GRAIN[measure.unit], outcomes)


def fill(
    table: "PaperTable", scale: str, runs: TableRuns, results: Mapping[str, Result], failures: Sequence[Failure]
) -> Sheet:
    """The sheet of a table.

    Args:
        table: The table.
        scale: Name of the preset.
        runs: Configs of its runs, and the holes that have none.
        results: Results by label.
        failures: Runs that failed.
    """
    failed = {failure.label for failure in failures}
    values: dict[Place, dict[int, float]] = {}
    holes = dict(runs.holes)
    used: dict[Path, Result] = {}
    at: dict[Place, dict[int, Result]] = {}
    for (place, seed), (label, _) in runs.configs.items():
        measure = table.measure(place[1])
        if label not in results:
            holes[place] = "failed" if label in failed else holes.get(place) or "not run"
            continue
        result = results[label]
        used[result.folder] = result
        at.setdefault(place, {})[seed] = result
        value = result.metric(measure.metric, table.protocol)
        if value is None:
            holes[place] = f"no {measure.metric} under this protocol"
        else:
            tested = result.data["examples"]["test"]
            values.setdefault(place, {})[seed] = convert(value, measure.unit, tested)
    if table.teacher_row is not None:
        for column in table.columns:
            own = [results[label] for (p, _), (label, _) in runs.configs.items() if p[1] == column and label in results]
            values[table.teacher_row, column] = _teachers(table, column, own)
    if table.shows == "gain":
        values = _gains(values, str(table.baseline))
    preset = table.scales[scale]
    found = _Found(table, preset, values, at, holes)
    cells = {column: [found.cell(row, column) for row in table.rows] for column in table.columns}
    title = table.title if preset.paper else f"{table.title}: scale {scale}, not the paper's; no verdict on its numbers"
    shown = [cell for of in cells.values() for cell in of if cell.row != table.teacher_row]
    notes = [*captions(table, scale, shown, [r.data for r in used.values()]), *table.notes]
    baseline = table.baseline if table.shows == "metric" else None
    shape = (title, table.paper, table.protocol, baseline, list(table.columns), cells, table.reported, notes)
    return Sheet(*shape, _arrows(table, list(used.values())))


def _arrows(table: "PaperTable", runs: Sequence[Result]) -> dict[str, str]:
    """By column, an arrow towards better numbers; errors are of the other direction than their metric."""
    shown, arrows = Shown(runs), {1: "↑", -1: "↓"}
    signs = {
        c: shown[m.metric].sign * (-1 if m.unit == "errors" else 1) for c in table.columns if (m := table.measure(c))
    }
    return {column: arrows[sign] for column, sign in signs.items() if sign}


def _gains(values: Mapping[Place, Mapping[int, float]], baseline: str) -> dict[Place, dict[int, float]]:
    """Each number minus the baseline's of the same seed; only seeds that both have."""
    gains = {}
    for (row, column), of in values.items():
        base = values.get((baseline, column), {})
        gains[row, column] = {seed: value - base[seed] for seed, value in of.items() if seed in base}
    return gains


def _teachers(table: "PaperTable", column: str, runs: Sequence[Result]) -> dict[int, float]:
    """Measurements of the distinct teachers of the runs."""
    measure = table.measure(column)
    facts = {}
    for run in runs:
        teacher = run.data["teacher"]
        if teacher is not None and measure.metric in teacher:
            facts[teacher["sha256"]] = convert(teacher[measure.metric], measure.unit, run.data["examples"]["test"])
    return dict(enumerate(facts.values()))
