"""Tables of runs: mean, standard deviation and n per row and column, and differences with their intervals.

One class whose methods read the same fields, so it stays in one file.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import wrap

from kdx.core.metric import Catalogue, Metric
from kdx.runs.results import Protocol, Result
from kdx.tables.examples import outcomes_of
from kdx.tables.footnotes import align, as_cell, pipes
from kdx.tables.gains import EXAMPLES, GAIN, WITH_EXAMPLES, gain_notes, show_gain, show_whole
from kdx.tables.metrics import Shown
from kdx.tables.multiplicity import holm, survivors
from kdx.tables.populations import distinct, teachers_by_row
from kdx.tables.run_notes import run_notes
from kdx.tables.statistics import Comparison, Interval, Summary, compare, grain_of

TEACHER = "teacher"
LINE = 118  # characters of a note's line in a terminal
# columns that compare a row with a reference row
DERIVED = ("cost", GAIN)
STOPPED = "stopped"  # column of the reason, where seeds were added until a difference was decided
CSV_HEADER = ["row", "metric", "mean", "std", "n", "wanted", "low", "high", "low_with_examples", "high_with_examples"]
CSV_HEADER += ["p", "p_holm", "seeds", "values"]

Values = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Numbers by row, column and seed."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells by row and column.

    Attributes:
        title: Heading.
        columns: Metric names.
        cells: Summary of each measured (row, column); others are absent.
        values: The numbers behind the summaries, by row, column and seed; empty where they were not kept.
        wanted: Number of runs that each row should have.
        gains: Differences to the baseline in the first column, by row.
        baseline: The row that differences are taken to; None for none.
        stopped: Why a row has no further seeds, where they were added until its difference was decided.
        notes: Protocol, population, hardware and code behind the numbers.
        shown: How the columns' metrics are shown.
    """

    title: str
    columns: Sequence[str]
    cells: Mapping[str, Mapping[str, Summary]]
    values: Values = field(default_factory=dict)
    wanted: Mapping[str, int]
    gains: Mapping[str, Comparison] = field(default_factory=dict)
    baseline: str | None = None
    stopped: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str]
    shown: Catalogue

    @classmethod
    def of(
        cls, title: str, columns: Sequence[str], values: Values, wanted: int, notes: Sequence[str], shown: Catalogue
    ) -> "Table":
        """A table of numbers, without differences."""
        cells = {row: {c: Summary.of(list(of.values())) for c, of in by.items() if of} for row, by in values.items()}
        return cls(
            title=title,
            columns=columns,
            cells=cells,
            values=values,
            wanted=dict.fromkeys(cells, wanted),
            notes=notes,
            shown=shown,
        )

    @classmethod
    def build(
        cls,
        *,
        title: str,
        results: Mapping[str, Mapping[int, Result]],
        columns: Sequence[str],
        protocol: Protocol,
        baseline: str | None,
        cost_row: str | None,
        teacher_row: bool,
        wanted: int = 1,
        missing: Sequence[str] = (),
        varied: Sequence[str] = (),
        stopped: Mapping[str, str] | None = None,
    ) -> "Table":
        """Summarise the runs of each row.

        The column "cost" is a step's time over that of `cost_row`, the column "gain" the first column's difference to
        `baseline`, both seed by seed.

        Args:
            results: Results by row and seed; a row may lack seeds, or all.
            wanted: Number of seeds of each row.
            stopped: Why each row has no further seeds, where seeds were added until the differences were decided.
            missing: A line for each run without a result.
            varied: Keys of the config that change from seed to seed.
        """
        values: dict[str, dict[str, dict[int, float]]] = {}
        ofs = [column for column in columns if column.startswith("teacher/")]
        for row, runs in results.items():
            measured = {
                c: {s: _value(r, c, protocol) for s, r in (distinct(runs) if c in ofs else runs).items()}
                for c in columns
                if c not in DERIVED
            }
            if "cost" in columns and cost_row is not None:
                reference = results[cost_row]
                measured["cost"] = {s: _step(r) / _step(reference[s]) for s, r in runs.items() if s in reference}
            # a cell needs the metric of each run of the row
            values[row] = {
                c: {s: v for s, v in by.items() if v is not None}
                for c, by in measured.items()
                if by and None not in by.values()
            }
        runs = [r for of in results.values() for r in of.values()]
        main, shown = columns[0], Shown(runs)
        gains: dict[str, Comparison] = {}
        if baseline is not None and main in values[baseline]:
            gains = {
                row: difference(results[row], results[baseline], main, protocol, stopped is not None)
                for row, of in values.items()
                if row != baseline and main in of
            }
        if teacher_row:
            values = {**teachers_by_row(results, columns, TEACHER, baseline), **values}
        plain = cls.of(title, columns, values, wanted, (), shown)
        own = {row: len(next(iter(values[row].values()), {})) for row in plain.cells if row not in results}
        notes = [
            *gain_notes(gains, baseline, shown[main], told=GAIN not in columns),
            *(f"missing: {line}" for line in missing),
            *run_notes(results, protocol, varied),
        ]
        more = {**plain.wanted, **own}
        if stopped is not None:
            more |= {row: len(of) for row, of in results.items()}
        return replace(plain, wanted=more, gains=gains, baseline=baseline, notes=notes, stopped=stopped or {})

    @property
    def n(self) -> dict[str, int]:
        """Number of runs by row."""
        return {row: max((summary.n for summary in of.values()), default=0) for row, of in self.cells.items()}

    def form(self, column: str) -> Metric:
        """How a column's numbers are shown; the gain's as those of the first column, which it compares."""
        return self.shown[self.columns[0] if column in (GAIN, EXAMPLES) else column]

    def heading(self, column: str) -> str:
        """The heading of a column: label, unit and an arrow towards better numbers."""
        if column == GAIN:
            return f"difference to {self.baseline} [95 % over seeds]"
        return WITH_EXAMPLES if column == EXAMPLES else self.form(column).directed

    @property
    def printed_columns(self) -> list[str]:
        """The columns; after the gain's, one for its interval over seeds and examples where that is known."""
        whole = [EXAMPLES] if any(gain.whole is not None for gain in self.gains.values()) else []
        return [part for column in self.columns for part in ([GAIN, *whole] if column == GAIN else [column])]

    def header(self) -> list[str]:
        spread = any(summary.n > 1 for of in self.cells.values() for summary in of.values())
        heads = [
            self.heading(c) + (" ± sd" if spread and c not in (GAIN, EXAMPLES) else "") for c in self.printed_columns
        ]
        return ["", *heads, "n", *([STOPPED] if self.stopped else [])]

    def rows(self) -> list[list[str]]:
        """Formatted cells; "-" if not measured."""
        kept = survivors(self.gains)
        return [
            [
                row,
                *(self._cell(row, column, row in kept) for column in self.printed_columns),
                self.count(row),
                *([self.stopped.get(row, "-")] if self.stopped else []),
            ]
            for row in self.cells
        ]

    def count(self, row: str) -> str:
        """ "3", or "2 of 3" for a row that lacks runs."""
        n, wanted = self.n[row], self.wanted[row]
        return str(n) if n >= wanted else f"{n} of {wanted}"

    def _cell(self, row: str, column: str, kept: bool) -> str:
        metric, gain = self.form(column), self.gains.get(row)
        if column in (GAIN, EXAMPLES):
            if gain is None:
                return "-"
            last = (column == EXAMPLES) == (gain.whole is not None)
            return (show_gain if column == GAIN else show_whole)(gain, metric) + (" *" if kept and last else "")
        of = self.cells[row]
        return of[column].show(metric.scale, metric.digits) if column in of else "-"

    def markdown(self) -> str:
        header = self.header()
        lines = [f"# {self.title}", "", pipes(header), "|" + "|".join([":--", *["--:"] * (len(header) - 1)]) + "|"]
        lines += [pipes(row) for row in self.rows()]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes), ""])

    def text(self) -> str:
        """Format the table for a terminal."""
        lines = align([self.header(), *self.rows()])
        rule = "-" * len(lines[0])
        notes = [line for note in self.notes for line in wrap(note, LINE, subsequent_indent="  ")]
        return "\n".join([self.title, rule, lines[0], rule, *lines[1:], rule, *notes])

    def csv(self) -> str:
        """CSV with one line per cell; fractions, not percent; the numbers of single runs in `values`, by `seeds`.

        `low` and `high` are a mean's 95 % interval over seeds; of the metric "gain", that of the difference.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        ends_with = [STOPPED] if self.stopped else []
        writer.writerow([*CSV_HEADER, *ends_with])
        adjusted = holm({row: gain.p for row, gain in self.gains.items() if gain.enough})
        for row, of in self.cells.items():
            for column, summary in of.items():
                known = self.values.get(row, {}).get(column, {})
                ends = clamped(summary.interval, self.form(column))
                facts = [summary.mean, summary.std, summary.n, self.wanted[row], *ends, None, None, None, None]
                names = [as_cell(row), as_cell(column)]
                why = [""] if self.stopped else []
                writer.writerow([*names, *_known(facts), _joined(known), _joined(known.values()), *why])
            if row in self.gains:
                gain = self.gains[row]
                whole = gain.whole or (None, None)
                facts = [gain.gain.mean, gain.gain.std, gain.gain.n, self.wanted[row], *gain.interval, *whole]
                own, base = (self.values.get(r or "", {}).get(self.columns[0], {}) for r in (row, self.baseline))
                each = [own[seed] - base[seed] for seed in gain.seeds if own and base]
                more = [gain.p, adjusted.get(row)]
                cells = [as_cell(row), GAIN, *_known([*facts, *more]), _joined(gain.seeds), _joined(each)]
                writer.writerow([*cells, *([self.stopped.get(row, "")] if self.stopped else [])])
        return out.getvalue()


def difference(
    ours: Mapping[int, Result], theirs: Mapping[int, Result], metric: str, protocol: Protocol, anytime: bool
) -> Comparison:
    """The difference of two rows of runs.

    Args:
        ours, theirs: By seed, at least one each, with the metric.
        metric, protocol: The compared number.
        anytime: Whether seeds were added until the difference was decided.

    Raises:
        ValueError: A side is empty, or has no run with the metric.
    """
    runs = [*ours.values(), *theirs.values()]
    form = Shown(runs)[metric]
    own, base = (
        {s: v for s, r in side.items() if (v := _value(r, metric, protocol)) is not None} for side in (ours, theirs)
    )
    tested = {int(run.data["examples"]["test"]) for run in runs}
    unit = 10.0**-form.digits / form.scale
    grain = grain_of([*own.values(), *base.values()], tested.pop() if len(tested) == 1 else None, unit)
    outcomes = None if anytime else outcomes_of(ours, theirs, metric, protocol)
    return compare(own, base, grain, outcomes, anytime)


def clamped(interval: Interval, metric: Metric) -> Interval:
    """The interval of a mean, inside [0, 1] for a fraction."""
    low, high = interval
    return (max(0.0, low), min(1.0, high)) if metric.scale != 1 and not math.isnan(low) else interval


def _known(values: Sequence[float | None]) -> list[object]:
    """Cells of a CSV file: empty for what is not known."""
    return ["" if value is None or math.isnan(value) else value for value in values]


def _joined(values: object) -> str:
    return " ".join(map(str, values))  # pyright: ignore[reportArgumentType]


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
