"""A study that repeats a paper's table and compares it with the published numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from kdx.config.layout import options as known
from kdx.core.errors import UserError
from kdx.core.files import below
from kdx.pool.pool import look_up
from kdx.runs.export import folder_of
from kdx.runs.results import Protocol
from kdx.studies.config_cache import ConfigCache
from kdx.studies.options import Options, changing, select
from kdx.studies.scales import Preset, chosen, latest, presets
from kdx.studies.sheet import fill
from kdx.studies.table_runs import Place, TableRuns
from kdx.tables.claims.judge import judge as judge_claims
from kdx.tables.claims.read import check_places, read
from kdx.tables.claims.write import section
from kdx.tables.curves import Curves, draw_cells, draw_curves
from kdx.tables.manifest import SUFFIX, Made
from kdx.tables.paper_cells import Measure, Printed, Reported, Sheet, Unit
from kdx.tables.publish import Source, write_manifest
from kdx.tables.render import csv, latex, markdown, text

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
        curves: The table as curves over numbers of its columns; None for a panel per column, of a table that has few.
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
    scales: Mapping[str, Preset]
    reported: Mapping[str, Reported]
    notes: Sequence[str]
    claims: Mapping[str, Any] = field(default_factory=dict)
    curves: Curves | None = None
    printed: Mapping[Place, Printed] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        for key, kind in (("measures", Measure), ("reported", Reported)):
            # a config holds them as plain mappings
            parts = {k: v if isinstance(v, kind) else kind(**v) for k, v in getattr(self, key).items()}
            object.__setattr__(self, key, parts)
        object.__setattr__(self, "scales", presets(self.scales, published=True))
        if not self.rows or not self.columns or not self.scales:
            raise UserError("a table needs at least one row, one column and one scale")
        for scale, preset in self.scales.items():
            self._must_exist(preset.rows, self.rows, f"scales.{scale}.rows")
        for key in ("teacher_row", "baseline"):
            self._must_exist([getattr(self, key)] if getattr(self, key) else [], self.rows, key)
        if self.shows == "gain" and self.baseline is None:
            raise UserError("study.shows: a gain needs study.baseline, the row that it is over")
        self._must_exist(self.cells, self.rows, "cells")
        for row, of in self.cells.items():
            self._must_exist(of, self.columns, f"cells.{row}")
        self._must_exist(self.measures, self.columns, "measures")
        object.__setattr__(self, "printed", self._read_reported())
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

    def recipe(self, row: str, column: str, scale: Preset, more: Sequence[str] = ()) -> list[str] | str:
        """Overrides of a cell and `more`, without its seed; or a short reason why it cannot run."""
        own = self.cells.get(row, {}).get(column, ())
        parts = (self.overrides, self.columns[column], self.rows[row], own)
        if row == self.teacher_row or any(part is None for part in parts):
            return "" if row == self.teacher_row else "not available"
        # the last override of a key wins, so that a scale can change one of the table or of a cell
        every = (*parts, scale.overrides, scale.rows.get(row, ()), more)
        found = latest([o for part in every for o in part or ()])
        lacking = [o for o in found if o in self.awaits and not _exists(o)]
        return f"not built: {', '.join(lacking)}" if lacking else found

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run the missing cells and write the table as Markdown, LaTeX and CSV. See `Study.execute`."""
        name, runs = self._composed(paths, options)
        scale = self.scales[name]
        rows, columns = (
            select(options.rows, list(self.rows), "rows"),
            select(options.columns, list(self.columns), "columns"),
        )
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
        sheet = fill(self, name, runs, results, failures)
        made = [
            Made(label, ", ".join(place), [*self._overrides(place, scale, options), f"seed={seed}"], results[label])
            for (place, seed), (label, _) in runs.configs.items()
            if label in results
        ]
        source = Source(type(self).__name__, self.protocol, made)
        self._write(sheet, below(Path(paths["outputs"]) / "tables", self.name, "study.name"), name, paths, source)
        return [*runs.problems, *map(str, failures)]

    def finished(self, paths: Mapping[str, str], options: Options) -> tuple[int, int]:
        """Number of finished runs, and of all runs, of the scale."""
        configs = [config for _, config in self._composed(paths, options)[1].configs.values()]
        folders = {str(folder_of(config)): config for config in configs}  # cells may share a run
        return len(look_up(folders)[0]), len(folders)

    def _composed(self, paths: Mapping[str, str], options: Options) -> tuple[str, TableRuns]:
        """The name of the scale, and the configs of its cells."""
        name = next(iter(self.scales)) if options.scale is None else options.scale
        scale, place = chosen(self.scales, name), options.place(paths)
        if stray := changing(options.overrides):
            raise UserError(
                f"overrides={stray[0]}: a table runs what its file says; overrides only set paths, devices and so on"
            )
        runs = TableRuns(ConfigCache(Path(paths["outputs"]) / "studies" / "composed.json"))
        for row in self.rows:
            for column in self.columns:
                runs.add((row, column), self.recipe(row, column, scale, options.overrides), place, scale.seeds)
        runs.cache.save()
        return name, runs

    def _overrides(self, place: Place, scale: Preset, options: Options) -> list[str]:
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
            columns = [m.metric for c in self.columns if (m := self.measure(c))]
            write_manifest(folder, scale, paths, self.name, source, columns, files)
            names.append(f"{scale}.{SUFFIX}")
        if self.curves is not None:
            draw_curves(sheet, self.curves, folder / f"{scale}.png")
        else:
            draw_cells(sheet, folder / f"{scale}.png")
        print(text(sheet) + judged)
        print(f"\n{folder}/{', '.join(names)}")

    def measure(self, column: str) -> Measure:
        """Metric and unit of a column."""
        return self.measures.get(column) or Measure(metric=self.metric, unit=self.unit)


def _exists(override: str) -> bool:
    group, _, option = override.partition("=")
    return option in known(group)
