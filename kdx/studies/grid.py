"""Rows of overrides times seeds, and the table they make."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdx.config.compose import compose
from kdx.core.errors import UserError
from kdx.studies.picture import draw
from kdx.studies.prepare import prepare
from kdx.studies.results import Protocol, Result
from kdx.studies.run import run
from kdx.studies.table import TEACHER, Table


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Runs each row with each seed and prints one table.

    Runs are found by their identity, so repeating a study that was cut off runs only what is missing.

    Attributes:
        name: What its files are called.
        title: Heading of the table.
        overrides: Overrides that all runs share.
        seeds: Seeds of each row.
        seed_overrides: Overrides with "{seed}" in them.
        rows: Overrides of each row, by its label.
        baseline: Row that gains are measured against; None for none.
        teacher_row: Whether the teachers get a row of their own.
        cost_row: Row that the column "cost" compares the time of a step with; None for no such column.
        columns: Metric names, "seconds" for the time of a run, "cost" for the relative time of a step.
        protocol: Which epoch's numbers are shown.
    """

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

    def __post_init__(self):
        if not self.seeds or not self.rows:
            raise UserError("a study needs at least one seed and one row")
        for key in ("baseline", "cost_row"):
            row = getattr(self, key)
            if row is not None and row not in self.rows:
                raise UserError(f"study.{key} '{row}' is no row; rows: {', '.join(self.rows)}")
        if "cost" in self.columns and self.cost_row is None:
            raise UserError("the column 'cost' needs study.cost_row, the row that it compares with")

    def execute(self, paths: Mapping[str, str], fresh: bool) -> Path:
        """Run what is missing, write `table.md`, `table.csv` and `table.png`, and print the table.

        Args:
            paths: The config's paths.
            fresh: Whether finished runs are run over.

        Returns:
            The folder with the files.
        """
        place = [f"paths.{key}={value}" for key, value in paths.items()] + [f"fresh={str(fresh).lower()}"]
        # every config is checked before the first run starts
        configs = {
            (row, seed): prepare(compose([*place, *self.overrides, *own, *self._seeded(seed)]))
            for row, own in self.rows.items()
            for seed in self.seeds
        }
        results: dict[str, list[Result]] = {row: [] for row in self.rows}
        for count, ((row, seed), config) in enumerate(configs.items(), 1):
            print(f"kdx: [{count}/{len(configs)}] {row}, seed {seed}", file=sys.stderr, flush=True)
            results[row].append(run(config))
        table = Table.build(
            title=self.title,
            results=results,
            columns=self.columns,
            protocol=self.protocol,
            baseline=self.baseline,
            cost_row=self.cost_row,
            teacher_row=self.teacher_row,
        )
        folder = Path(paths["outputs"]) / "studies" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "table.md").write_text(table.markdown())
        (folder / "table.csv").write_text(table.csv())
        draw(table, folder / "table.png", first=TEACHER if self.teacher_row else None)
        print(table.text())
        print(f"\n{folder}/table.md, table.csv, table.png")
        return folder

    def _seeded(self, seed: int) -> list[str]:
        return [override.format(seed=seed) for override in self.seed_overrides]
