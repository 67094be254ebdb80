"""A study of rows of overrides, each with several seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, ClassVar

from kdx.config.compose import compose
from kdx.core.errors import UserError
from kdx.pool.task import Failure
from kdx.runs.prepare import prepare
from kdx.runs.results import Protocol, Result
from kdx.studies.options import Options, changing, select
from kdx.studies.scales import Preset, chosen, latest, presets
from kdx.studies.study import run_missing
from kdx.studies.until_decided import Key, nth_seed, run_until_decided
from kdx.tables.claims.read import check_places, read
from kdx.tables.manifest import Made
from kdx.tables.publish import Source, publish
from kdx.tables.table import TEACHER, Table

Notes = Callable[[Mapping[str, Mapping[int, Result]]], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Runs each row with each seed and prints one table.

    A run is known by its identity, so repeating an interrupted study runs only what is missing.

    Attributes:
        name: Directory of its files.
        title: Heading of the table.
        overrides: Overrides of all runs.
        seeds: Seeds of each row.
        seed_overrides: Overrides of all runs in which "{seed}" stands for the seed.
        rows: Overrides of each row, by its label; "{seed}" stands for the seed.
        baseline: Row that gains are measured against; None for none.
        teacher_row: Whether the table has a row for the teachers.
        cost_row: Row whose step time is 1 in the column "cost"; None for no such column.
        columns: Metric names, "seconds" for the time of a run, "cost" for the relative time of a step, "gain" for the
            difference to the baseline in the first column, "teacher/test/top1" and the like for a row's teachers on
            test.
        protocol: The epoch whose numbers the table shows.
        claims: Claims about the table, see `kdx.tables.claims`.
        scales: Presets by name, for `scale=NAME`; a preset's files lie in the directory `NAME` below the study's.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"rows", "scale", "seeds"})

    name: str
    title: str
    overrides: Sequence[str]
    seeds: Sequence[int]
    seed_overrides: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    baseline: str | None
    cost_row: str | None
    teacher_row: bool
    columns: Sequence[str]
    protocol: Protocol
    claims: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Preset] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "scales", presets(self.scales))
        if not self.seeds or not self.rows:
            raise UserError("a study needs at least one seed and one row")
        for key in ("baseline", "cost_row"):
            row = getattr(self, key)
            if row is not None and row not in self.rows:
                raise UserError(f"study.{key} '{row}' is not a row; rows: {', '.join(self.rows)}")
        if "cost" in self.columns and self.cost_row is None:
            raise UserError("the column 'cost' needs study.cost_row, its reference row")
        if "gain" in self.columns and self.baseline is None:
            raise UserError("the column 'gain' needs study.baseline, its reference row")
        object.__setattr__(self, "claims", read(self.claims))
        check_places(self.claims, [*self.rows, TEACHER], self.columns)

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run what is missing, write `table.md`, `table.csv` and `table.png`, and print the table.

        A row with failed runs shows how many it has, and a note says why.

        See `Study.execute`.
        """
        if options.scale is not None:
            return self._at(options.scale).execute(paths, replace(options, scale=None))
        return self._execute(paths, options, lambda _: [])

    def execute_with(self, paths: Mapping[str, str], options: Options, notes: Notes) -> list[str]:
        """`execute` with further notes.

        Args:
            paths, options: As in `execute`.
            notes: Makes notes from the results by row and seed.
        """
        grid = self if options.scale is None else self._at(options.scale)
        return grid._execute(paths, replace(options, scale=None), notes)

    def finished(self, paths: Mapping[str, str], options: Options) -> tuple[int, int]:
        """Number of finished runs, and of all runs, of the seeds that are listed."""
        grid = self if options.scale is None else self._at(options.scale)
        keys = [(row, seed) for row in select(options.rows, list(grid.rows), "rows") for seed in grid.seeds]
        found, _ = grid._run(keys, {}, options.place(paths), replace(options, scale=None, only="render"))
        return len(found), len(keys)

    def _at(self, name: str) -> "Grid":
        """The study at a scale."""
        scale = chosen(self.scales, name)
        rows = scale.applied(self.rows)
        return replace(self, name=f"{self.name}/{name}", seeds=scale.seeds, rows=rows, scales={}, claims={})

    def _execute(self, paths: Mapping[str, str], options: Options, notes: Notes) -> list[str]:
        rows = select(options.rows, list(self.rows), "rows")
        if options.seeds is not None:
            rows = self._compared(rows)
        recipes: dict[Key, list[str]] = {}
        lines: list[str] = []
        reasons: dict[str, str] = {}

        def run(keys: Sequence[Key]) -> dict[Key, Result]:
            found, failures = self._run(keys, recipes, options.place(paths), options)
            lines.extend(map(str, failures))
            reasons.update({failure.label: failure.error for failure in failures})
            return found

        if options.seeds is None:
            seeds, stopped = {row: list(self.seeds) for row in rows}, None
            found = run([(row, seed) for row in rows for seed in self.seeds])
        else:
            assert self.baseline is not None
            seeds, found, stopped = run_until_decided(
                rows, self.baseline, self.seeds, options.seeds, self.columns[0], self.protocol, run
            )
        if not found:
            return lines or ["no run has a result"]
        results = {row: {seed: found[row, seed] for seed in seeds[row] if (row, seed) in found} for row in rows}
        made = [
            Made(_label(row, seed), row, recipes[row, seed], result)
            for row, of in results.items()
            for seed, result in of.items()
        ]
        source = Source(type(self).__name__, self.protocol, made)
        self.present(results, reasons, paths, options, source, seeds, stopped, notes(results))
        return lines

    def _compared(self, rows: Sequence[str]) -> list[str]:
        """The rows and the baseline. Raises UserError for a study without comparisons."""
        if self.baseline is None:
            raise UserError(f"the study '{self.name}' has no baseline (study.baseline), so there is nothing to decide")
        return [row for row in self.rows if row in rows or row == self.baseline]

    def _run(
        self, keys: Sequence[Key], recipes: dict[Key, list[str]], place: Sequence[str], options: Options
    ) -> tuple[dict[Key, Result], list[Failure]]:
        """Run what is missing, and add the overrides of each run to `recipes`; with `only=render` nothing runs."""
        recipes |= {(row, seed): latest([*self.recipe(self.rows[row], seed), *options.overrides]) for row, seed in keys}
        # checks every config before the first run starts
        configs = {_label(*key): prepare(compose([*place, *recipes[key]])) for key in keys}
        found, failures = run_missing(configs, options)
        return {key: found[_label(*key)] for key in keys if _label(*key) in found}, failures

    def seen(self, paths: Mapping[str, str], options: Options) -> dict[str, dict[int, Result]]:
        """Finished runs of the compared rows by seed: the listed seeds, and those after them until one is missing.

        Raises:
            UserError: The study has no baseline.
        """
        found: dict[str, dict[int, Result]] = {}
        for row in self._compared(select(options.rows, list(self.rows), "rows")):
            found[row] = {}
            for place in count():
                key = row, nth_seed(self.seeds, place)
                result, _ = self._run([key], {}, options.place(paths), replace(options, only="render"))
                if not result and place >= len(self.seeds):
                    break
                found[row] |= {seed: of for (_, seed), of in result.items()}
        return found

    def present(
        self,
        results: Mapping[str, Mapping[int, Result]],
        reasons: Mapping[str, str],
        paths: Mapping[str, str],
        options: Options,
        source: Source,
        seeds: Mapping[str, Sequence[int]],
        stopped: Mapping[str, str] | None,
        notes: Sequence[str] = (),
    ) -> None:
        """Write and print the table.

        Args:
            results: Results by row and seed; at least one.
            reasons: Why runs have no result, by "ROW, seed SEED".
            paths: The config's paths.
            options: Options of the command line.
            source: The runs, for the manifest.
            seeds: Seeds of each row.
            stopped: Why each row has no further seeds; None for listed seeds.
            notes: Further notes, which come first.
        """
        lacking = [_label(row, seed) for row, of in results.items() for seed in seeds[row] if seed not in of]
        table = Table.build(
            title=self.title,
            results=results,
            columns=[c for c in self.columns if self._reference(c) is None or results.get(self._reference(c) or "")],
            protocol=self.protocol,
            baseline=self.baseline if results.get(self.baseline or "") else None,
            cost_row=self.cost_row if results.get(self.cost_row or "") else None,
            teacher_row=self.teacher_row,
            wanted=len(self.seeds),
            stopped=stopped,
            missing=[f"{label}: {reasons.get(label, 'not run')}" for label in lacking],
            varied=self._varied(),
        )
        table = replace(table, notes=[*notes, *table.notes])
        if self.baseline is not None and not results.get(self.baseline):
            line = f"no differences, since the baseline '{self.baseline}' has no result"
            table = replace(table, notes=[line, *table.notes])
        if changed := changing(options.overrides):
            table = replace(table, notes=[*table.notes, f"every run with {' '.join(changed)}"])
        publish(table, paths, self.name, source, claims=self.claims)

    def _reference(self, column: str) -> str | None:
        """The reference row of a column; None for a plain measurement."""
        return {"cost": self.cost_row, "gain": self.baseline}.get(column)

    def _varied(self) -> list[str]:
        """Keys of the config that change from seed to seed."""
        every = [*self.seed_overrides, *self.overrides, *(o for own in self.rows.values() for o in own)]
        return list(dict.fromkeys(o.split("=", 1)[0] for o in every if "{seed}" in o)) or ["seed"]

    def recipe(self, own: Sequence[str], seed: int) -> list[str]:
        """Overrides of a run: those of all runs, its own, and those of its seed."""
        whole = [*self.overrides, *own, *self.seed_overrides]
        return [override.replace("{seed}", str(seed)) for override in whole]


def _label(row: str, seed: int) -> str:
    return f"{row}, seed {seed}"
