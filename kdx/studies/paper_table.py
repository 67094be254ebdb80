"""A study that repeats a paper's table and compares it with the published numbers.

The dataclass is the config's schema; its methods read most of its fields, so they stay in one file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from kdx.config.identity import left_out
from kdx.config.layout import options as known
from kdx.core.errors import UserError
from kdx.core.files import below
from kdx.pool.pool import look_up
from kdx.pool.task import Failure
from kdx.runs.results import Protocol, Result
from kdx.studies.config_cache import ConfigCache
from kdx.studies.options import Options, select
from kdx.studies.table_runs import Place, TableRuns
from kdx.tables.captions import captions
from kdx.tables.claims.judge import judge as judge_claims
from kdx.tables.claims.read import check_places, read
from kdx.tables.claims.write import section
from kdx.tables.curves import Curves, draw_curves
from kdx.tables.examples import outcomes_of
from kdx.tables.manifest import SUFFIX, Made
from kdx.tables.metrics import Shown
from kdx.tables.paper_cells import GRAIN, Cell, Measure, Printed, Reported, Scale, Sheet, Unit, convert, judge
from kdx.tables.publish import Source, write_manifest
from kdx.tables.render import csv, latex, markdown, text
from kdx.tables.statistics import Comparison, Summary, compare

Overrides = Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """Runs the missing cells of a paper's table and writes it; a cell without runs is marked as a hole.

    Attributes:
        name: Directory of its files.
        title: Heading.
        paper: Citation of the paper.
        overrides: Overrides of all runs.
        rows: Overrides of each row; None for a row that kdx cannot run.
        columns: Overrides of each column; None likewise.
        cells: Further overrides of single cells by row and column; None likewise.
        awaits: Overrides such as "method=crd" whose option may not exist yet; cells that need it are holes until then.
        metric: Name of the metric.
        unit: Of the published numbers.
        measures: Metric and unit of columns that differ from `metric` and `unit`.
        protocol: The epoch whose numbers the table shows.
        teacher_row: Row that shows the teachers of the runs in its column; None for none.
        baseline: Row that gains are measured against, seed by seed; None for none.
        shows: "metric", or "gain" if the published numbers are gains over the baseline.
        scales: Presets by name; the first one is the default.
        reported: Published numbers by a short name of their source.
        notes: Further notes below the table.
        claims: Claims about the table, see `kdx.tables.claims`.
        curves: The table as a picture; None for none.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"scale", "rows", "columns"})

    name: str
    title: str
    paper: str
    overrides: Sequence[str]
    rows: Mapping[str, Overrides]
    columns: Mapping[str, Overrides]
    cells: Mapping[str, Mapping[str, Overrides]]
    awaits: Sequence[str]
    metric: str
    unit: Unit
    measures: Mapping[str, Measure]
    protocol: Protocol
    teacher_row: str | None
    baseline: str | None
    shows: Literal["metric", "gain"]
    scales: Mapping[str, Scale]
    reported: Mapping[str, Reported]
    notes: Sequence[str]
    claims: Mapping[str, Any] = field(default_factory=dict)
    curves: Curves | None = None
    _printed: Mapping[Place, Printed] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        for key, kind in (("measures", Measure), ("scales", Scale), ("reported", Reported)):
            # a config holds them as plain mappings
            parts = {k: v if isinstance(v, kind) else kind(**v) for k, v in getattr(self, key).items()}
            object.__setattr__(self, key, parts)
        if not self.rows or not self.columns or not self.scales:
            raise UserError("a table needs at least one row, one column and one scale")
        for scale, preset in self.scales.items():
            if not preset.seeds:
                raise UserError(f"study.scales.{scale}.seeds: at least one seed is needed")
        for key in ("teacher_row", "baseline"):
            self._must_exist([getattr(self, key)] if getattr(self, key) else [], self.rows, key)
        if self.shows == "gain" and self.baseline is None:
            raise UserError("study.shows: a gain needs study.baseline, the row that it is over")
        self._must_exist(self.cells, self.rows, "cells")
        for row, of in self.cells.items():
            self._must_exist(of, self.columns, f"cells.{row}")
        self._must_exist(self.measures, self.columns, "measures")
        object.__setattr__(self, "_printed", self._read_reported())
        object.__setattr__(self, "claims", read(self.claims))
        check_places(self.claims, self.rows, self.columns)
        if self.curves is not None:
            curves: Any = self.curves  # a config holds a plain mapping
            object.__setattr__(self, "curves", curves if isinstance(curves, Curves) else Curves(**curves))
            self.curves.check(self.columns)

    def _must_exist(self, names: Any, among: Mapping[str, Any], key: str) -> None:
        for name in names:
            if name not in among:
                raise UserError(f"study.{key}: there is no '{name}'; known: {', '.join(among)}")

    def _read_reported(self) -> dict[Place, Printed]:
        printed: dict[Place, Printed] = {}
        for source, of in self.reported.items():
            for key, numbers in (("values", of.values), ("std", of.std)):
                self._must_exist(numbers, self.rows, f"reported.{source}.{key}")
                for row, row_numbers in numbers.items():
                    if len(row_numbers) != len(self.columns):
                        raise UserError(
                            f"study.reported.{source}.{key}.{row}: {len(self.columns)} columns want as many numbers "
                            f"(null where none is printed), found {len(row_numbers)}"
                        )
            for row, values in of.values.items():
                deviations = of.std.get(row) or [None] * len(values)
                for column, value, std in zip(self.columns, values, deviations, strict=True):
                    if value is None:
                        continue
                    if (row, column) in printed:
                        raise UserError(f"study.reported: two sources give a number for '{row}', '{column}'")
                    printed[row, column] = Printed(value, std, source, of)
        return printed

    def recipe(self, row: str, column: str, scale: Scale, more: Sequence[str] = ()) -> list[str] | str:
        """Overrides of a cell and `more`, without its seed; or a short reason why it cannot run."""
        own = self.cells.get(row, {}).get(column, ())
        parts = (self.overrides, self.columns[column], self.rows[row], own)
        if row == self.teacher_row or any(part is None for part in parts):
            return "" if row == self.teacher_row else "not available"
        # the last override of a key wins, so that a scale can change one of the table or of a cell
        found = list({o.split("=", 1)[0]: o for part in (*parts, scale.overrides, more) for o in part or ()}.values())
        lacking = [o for o in found if o in self.awaits and not _exists(o)]
        return f"not built: {', '.join(lacking)}" if lacking else found

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run the missing cells and write the table as Markdown, LaTeX and CSV.

        Args:
            paths: The config's paths.
            options: Options of the command line.

        Returns:
            A line for each failure.
        """
        name = next(iter(self.scales)) if options.scale is None else options.scale
        if name not in self.scales:
            raise UserError(f"scale={name}: this table has {', '.join(self.scales)}")
        if stray := [o for o in options.overrides if not left_out(o.lstrip("+~").split("=", 1)[0])]:
            raise UserError(
                f"overrides={stray[0]}: a table runs what its file says; overrides only set paths, devices and so on"
            )
        scale = self.scales[name]
        rows, columns = (
            select(options.rows, list(self.rows), "rows"),
            select(options.columns, list(self.columns), "columns"),
        )
        place = options.place(paths)
        runs = TableRuns(ConfigCache(Path(paths["outputs"]) / "studies" / "composed.json"))
        for row in self.rows:
            for column in self.columns:
                runs.add((row, column), self.recipe(row, column, scale, options.overrides), place, scale.seeds)
        runs.cache.save()
        wanted = {
            label: config
            for (place_, _), (label, config) in runs.configs.items()
            if place_[0] in rows and place_[1] in columns
        }
        if options.only is None:
            results, failures = runs.run(wanted, options)
        else:
            results, failures = look_up(wanted)
        results = look_up(dict(runs.configs.values()))[0] | results
        sheet = self._sheet(name, runs, results, failures)
        made = [
            Made(label, ", ".join(place), [*self._overrides(place, scale, options), f"seed={seed}"], results[label])
            for (place, seed), (label, _) in runs.configs.items()
            if label in results
        ]
        source = Source(type(self).__name__, self.protocol, made)
        self._write(sheet, below(Path(paths["outputs"]) / "tables", self.name, "study.name"), name, paths, source)
        return [*runs.problems, *map(str, failures)]

    def _overrides(self, place: Place, scale: Scale, options: Options) -> list[str]:
        found = self.recipe(*place, scale, options.overrides)
        return found if isinstance(found, list) else []

    def _write(self, sheet: Sheet, folder: Path, scale: str, paths: Mapping[str, str], source: Source) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        judged = "\n".join(section(judge_claims(self.claims, sheet.values, fractions=False)))
        files = {"md": markdown(sheet) + judged, "tex": latex(sheet), "csv": csv(sheet)}
        for suffix, written in files.items():
            (folder / f"{scale}.{suffix}").write_text(written)
        names = [f"{scale}.{suffix}" for suffix in files]
        if source.made:
            columns = [m.metric for c in self.columns if (m := self._measure(c))]
            write_manifest(folder, scale, paths, self.name, source, columns, files)
            names.append(f"{scale}.{SUFFIX}")
        if self.curves is not None:
            draw_curves(sheet, self.curves, folder / f"{scale}.png")
        print(text(sheet) + judged)
        print(f"\n{folder}/{', '.join(names)}")

    def _sheet(self, scale: str, runs: TableRuns, results: Mapping[str, Result], failures: Sequence[Failure]) -> Sheet:
        failed = {failure.label for failure in failures}
        values: dict[Place, dict[int, float]] = {}
        holes = dict(runs.holes)
        used: dict[Path, Result] = {}
        at: dict[Place, dict[int, Result]] = {}
        for (place, seed), (label, _) in runs.configs.items():
            measure = self._measure(place[1])
            if label not in results:
                holes[place] = "failed" if label in failed else holes.get(place) or "not run"
                continue
            result = results[label]
            used[result.folder] = result
            at.setdefault(place, {})[seed] = result
            value = result.metric(measure.metric, self.protocol)
            if value is None:
                holes[place] = f"no {measure.metric} under this protocol"
            else:
                tested = result.data["examples"]["test"]
                values.setdefault(place, {})[seed] = convert(value, measure.unit, tested)
        if self.teacher_row is not None:
            for column in self.columns:
                found = [
                    results[label]
                    for (place, _), (label, _) in runs.configs.items()
                    if place[1] == column and label in results
                ]
                values[self.teacher_row, column] = self._teachers(column, found)
        if self.shows == "gain":
            values = self._gains(values)
        at_scale = self.scales[scale].paper
        cells = {
            column: [self._cell(row, column, values, at, holes, self.scales[scale]) for row in self.rows]
            for column in self.columns
        }
        title = self.title if at_scale else f"{self.title}: scale {scale}, not the paper's; no verdict on its numbers"
        shown = [cell for of in cells.values() for cell in of if cell.row != self.teacher_row]
        notes = [*captions(self, scale, shown, [r.data for r in used.values()]), *self.notes]
        baseline = self.baseline if self.shows == "metric" else None
        shape = (title, self.paper, self.protocol, baseline, list(self.columns), cells, self.reported, notes)
        return Sheet(*shape, self._arrows(list(used.values())))

    def _arrows(self, runs: Sequence[Result]) -> dict[str, str]:
        """By column, an arrow towards better numbers; errors are of the other direction than their metric."""
        shown, arrows = Shown(runs), {1: "↑", -1: "↓"}
        signs = {
            c: shown[m.metric].sign * (-1 if m.unit == "errors" else 1) for c in self.columns if (m := self._measure(c))
        }
        return {column: arrows[sign] for column, sign in signs.items() if sign}

    def _cell(
        self,
        row: str,
        column: str,
        values: Mapping[Place, Mapping[int, float]],
        runs: Mapping[Place, Mapping[int, Result]],
        holes: Mapping[Place, str],
        scale: Scale,
    ) -> Cell:
        measure, place = self._measure(column), (row, column)
        numbers = values.get(place) or {}
        ours = Summary.of(list(numbers.values())) if numbers else None
        printed = self._printed.get(place)
        difference, margin, verdict = judge(ours, printed, self.protocol, scale.paper, GRAIN[measure.unit])
        hole = holes.get(place, "" if ours else "not run")
        gain = self._gain(row, column, values, runs)
        wanted = (ours.n if ours else 1) if row == self.teacher_row else len(scale.seeds)
        return Cell(
            *(row, column, measure.metric, measure.unit, printed, ours, wanted, hole),
            *(gain, difference, margin, verdict, numbers),
        )

    def _gain(
        self,
        row: str,
        column: str,
        values: Mapping[Place, Mapping[int, float]],
        runs: Mapping[Place, Mapping[int, Result]],
    ) -> Comparison | None:
        if self.baseline is None or self.shows == "gain" or row in (self.baseline, self.teacher_row):
            return None
        ours, theirs = values.get((row, column)), values.get((self.baseline, column))
        if not ours or not theirs:
            return None
        measure = self._measure(column)
        own, base = (
            {s: runs[place][s] for s in runs.get(place, {})} for place in ((row, column), (self.baseline, column))
        )
        outcomes = outcomes_of(own, base, measure.metric, self.protocol)
        if outcomes is not None:
            # an outcome in the table's unit; counts lack the offset, which differences do not have
            tested = next(iter(own.values())).data["examples"]["test"]
            factor = convert(1.0, measure.unit, tested) - convert(0.0, measure.unit, tested)
            left, right = ({s: factor * each for s, each in of.items()} for of in outcomes)
            outcomes = left, right
        return compare(ours, theirs, GRAIN[measure.unit], outcomes)

    def _gains(self, values: Mapping[Place, Mapping[int, float]]) -> dict[Place, dict[int, float]]:
        """Each number minus the baseline's of the same seed; only seeds that both have."""
        gains = {}
        for (row, column), of in values.items():
            base = values.get((str(self.baseline), column), {})
            gains[row, column] = {seed: value - base[seed] for seed, value in of.items() if seed in base}
        return gains

    def _teachers(self, column: str, runs: Sequence[Result]) -> dict[int, float]:
        """Measurements of the distinct teachers of the runs."""
        measure = self._measure(column)
        facts = {}
        for run in runs:
            teacher = run.data["teacher"]
            if teacher is not None and measure.metric in teacher:
                facts[teacher["sha256"]] = convert(teacher[measure.metric], measure.unit, run.data["examples"]["test"])
        return dict(enumerate(facts.values()))

    def _measure(self, column: str) -> Measure:
        return self.measures.get(column) or Measure(metric=self.metric, unit=self.unit)


def _exists(override: str) -> bool:
    group, _, option = override.partition("=")
    return option in known(group)
