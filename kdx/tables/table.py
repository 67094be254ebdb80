"""Tables of runs: mean, standard deviation and n per row and column."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdx.core.metric import Catalogue, Metric
from kdx.runs.results import Protocol, Result
from kdx.tables.footnotes import PROTOCOLS, align, as_cell, footnotes, pipes
from kdx.tables.metrics import Shown
from kdx.tables.statistics import ENOUGH, Summary, caution, paired_gain

TEACHER = "teacher"
# columns that compare a row with a reference row
DERIVED = ("cost", "gain")


@dataclass(frozen=True)
class Table:
    """Cells by row and column.

    Attributes:
        title: Heading.
        columns: Metric names.
        cells: Summary of each measured (row, column); others are absent.
        n: Number of seeds by row.
        gains: Paired differences to the baseline in the first column, by row.
        notes: Protocol, hardware and code behind the numbers.
        shown: How the columns' metrics are shown.
    """

    title: str
    columns: Sequence[str]
    cells: Mapping[str, Mapping[str, Summary]]
    n: Mapping[str, int]
    gains: Mapping[str, Summary]
    notes: Sequence[str]
    shown: Catalogue

    @classmethod
    def build(
        cls,
        *,
        title: str,
        results: Mapping[str, Sequence[Result]],
        columns: Sequence[str],
        protocol: Protocol,
        baseline: str | None,
        cost_row: str | None,
        teacher_row: bool,
    ) -> "Table":
        """Summarise the runs of each row.

        The column "cost" is a step's time over that of `cost_row`, the column "gain" the first column's difference
        to `baseline`, both seed by seed.
        """
        # a cell needs the metric of each run of the row
        values: dict[str, dict[str, list[float]]] = {}
        for row, runs in results.items():
            measured = {c: [_value(r, c, protocol) for r in runs] for c in columns if c not in DERIVED}
            if "cost" in columns and cost_row is not None:
                pairs = zip(runs, results[cost_row], strict=True)
                measured["cost"] = [_step(run) / _step(reference) for run, reference in pairs]
            values[row] = {c: [v for v in vs if v is not None] for c, vs in measured.items() if None not in vs}
        cells = {row: {c: Summary.of(vs) for c, vs in of.items()} for row, of in values.items()}
        if teacher_row and (teachers := _teachers(results, columns)):
            cells = {TEACHER: teachers, **cells}
        main, shown = columns[0], Shown([run for runs in results.values() for run in runs])
        gains = {}
        if baseline is not None:
            gains = {
                row: paired_gain(of[main], values[baseline][main])
                for row, of in values.items()
                if row != baseline and main in of and main in values[baseline]
            }
        if "gain" in columns:
            cells = {row: of | ({"gain": gains[row]} if row in gains else {}) for row, of in cells.items()}
        n = {row: max((c.n for c in of.values()), default=0) for row, of in cells.items()}
        told = {} if "gain" in columns else gains
        notes = _notes(results, protocol, baseline, shown[main], told)
        if "gain" in columns:
            notes.insert(0, f"gain: difference to {baseline} in {shown[main].heading}, paired over seeds")
        return cls(title, columns, cells, n, gains, notes, shown)

    def form(self, column: str) -> Metric:
        """How a column's numbers are shown; the gain's as those of the first column, which it compares."""
        return self.shown[self.columns[0] if column == "gain" else column]

    def heading(self, column: str) -> str:
        """The heading of a column."""
        return "gain" if column == "gain" else self.form(column).heading

    def header(self) -> list[str]:
        return ["", *map(self.heading, self.columns), "n"]

    def rows(self) -> list[list[str]]:
        """Formatted cells; "-" if not measured."""
        lines = []
        for row, of in self.cells.items():
            shown = []
            for column in self.columns:
                metric = self.form(column)
                shown.append(of[column].show(metric.scale, metric.digits) if column in of else "-")
            lines.append([row, *shown, str(self.n[row])])
        return lines

    def markdown(self) -> str:
        lines = [f"# {self.title}", "", pipes(self.header())]
        lines.append("|" + "|".join([":--", *["--:"] * (len(self.columns) + 1)]) + "|")
        lines += [pipes(row) for row in self.rows()]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes), ""])

    def text(self) -> str:
        """Format the table for a terminal."""
        lines = align([self.header(), *self.rows()])
        rule = "-" * len(lines[0])
        return "\n".join([self.title, rule, lines[0], rule, *lines[1:], rule, *self.notes])

    def csv(self) -> str:
        """CSV with one line per cell: row, metric, mean, std, n; fractions, not percent."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["row", "metric", "mean", "std", "n"])
        for row, of in self.cells.items():
            for column, summary in of.items():
                writer.writerow([as_cell(row), as_cell(column), summary.mean, summary.std, summary.n])
        return out.getvalue()


def _value(result: Result, column: str, protocol: Protocol) -> float | None:
    if column == "seconds":
        return float(result.data["seconds"])
    value, told = result.metric(column, protocol), result.data["teacher"] or {}
    fact = column.removeprefix("teacher/")
    if value is None and fact != column and fact in told:
        return float(told[fact])
    return value


def _step(result: Result) -> float:
    return float(result.data["milliseconds_per_step"])


def _teachers(results: Mapping[str, Sequence[Result]], columns: Sequence[str]) -> dict[str, Summary]:
    """Evaluations of the runs' distinct teachers; empty if there are none."""
    # methods without a teacher record none
    told = [r.data["teacher"] for runs in results.values() for r in runs if r.data["teacher"] is not None]
    facts = {teacher["sha256"]: teacher for teacher in told}
    measured = [c for c in columns if facts and all(c in f for f in facts.values())]
    return {c: Summary.of([f[c] for f in facts.values()]) for c in measured}


def _notes(
    results: Mapping[str, Sequence[Result]],
    protocol: Protocol,
    baseline: str | None,
    main: Metric,
    gains: Mapping[str, Summary],
) -> list[str]:
    runs = [r.data for of in results.values() for r in of]
    notes = [
        f"{row} against {baseline}: {'+' if gain.mean >= 0 else ''}{gain.show(main.scale, main.digits)} "
        f"{main.heading}, paired over {gain.n} seeds"
        for row, gain in gains.items()
    ]
    notes.append(
        f"mean ± sample standard deviation over n seeds {sorted({d['seed'] for d in runs})}; numbers of "
        f"{PROTOCOLS[protocol]}"
    )
    notes += footnotes(runs)
    if any(caution(len(of)) for of in results.values()):
        notes.append(f"fewer than {ENOUGH} seeds: the spread says little")
    return notes
