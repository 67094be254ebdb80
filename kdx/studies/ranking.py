"""A study that asks whether its rows rank as published ones do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from kdx.core.errors import UserError
from kdx.runs.results import Result
from kdx.studies.grid import Grid
from kdx.studies.options import Options
from kdx.tables.ranking import agreement, ranking_note


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A grid whose gains over the baseline are compared with published gains by Kendall's tau.

    Attributes:
        grid: Rows, seeds and columns; the first column is compared.
        published: Published numbers of the rows, the baseline included, by the pair of networks that they are of; null
            where a source has none. All are means of the last epoch. The first pair is the grid's own.
        source: Of the published numbers.

    Raises:
        UserError: The grid has no baseline, or a published row is none of the grid's.
    """

    accepts: ClassVar[frozenset[str]] = Grid.accepts

    grid: Grid
    published: Mapping[str, Mapping[str, float | None]]
    source: str

    def __post_init__(self):
        if self.grid.baseline is None:
            raise UserError("study.grid.baseline: a ranking of gains needs the row that they are over")
        for pair, of in self.published.items():
            if strange := [row for row in of if row not in self.grid.rows]:
                raise UserError(f"study.published.{pair}: '{strange[0]}' is no row of study.grid.rows")

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run the grid; its table ends with a note for each published pair. See `Study.execute`."""
        return self.grid.execute_with(paths, options, self.notes)

    def notes(self, results: Mapping[str, Mapping[int, Result]]) -> list[str]:
        """A sentence on the rank of the gains for each published pair with three rows in common or more."""
        baseline, column = self.grid.baseline, self.grid.columns[0]
        assert baseline is not None
        ours = {
            row: {s: v for s, r in of.items() if (v := r.metric(column, self.grid.protocol)) is not None}
            for row, of in results.items()
        }
        gains = {
            row: {seed: value - ours[baseline][seed] for seed, value in of.items() if seed in ours.get(baseline, {})}
            for row, of in ours.items()
            if row != baseline
        }
        lines = []
        for pair, of in self.published.items():
            base = of.get(baseline)
            theirs = {r: v - base for r, v in of.items() if v is not None and base is not None and r != baseline}
            common = [row for row in gains if row in theirs and gains[row]]
            if len(common) < 3:
                lines.append(f"{len(common)} rows have published gains of {pair}: too few for a rank correlation")
                continue
            try:
                lines.append(ranking_note(pair, agreement({row: gains[row] for row in common}, theirs)))
            except ValueError as error:
                lines.append(f"no rank correlation with {pair}: {error}")
        finite = [v for of in gains.values() for v in of.values() if math.isfinite(v)]
        return [*lines, f"published: {self.source}"] if finite else lines
