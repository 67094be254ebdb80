"""A reproduced table as a picture: curves over a number of each column, or a panel per column."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdx.core.errors import UserError
from kdx.core.metric import Catalogue, Metric
from kdx.tables.paper_cells import UNITS, Sheet
from kdx.tables.picture import BAND, INK, draw
from kdx.tables.statistics import Summary
from kdx.tables.table import Table

MARKS = "osD^vPX*"
PANELS = 8  # columns of a picture at most


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A picture of a table whose columns have numbers.

    Attributes:
        x: Number of each column that the picture shows.
        x_label: Name of these numbers.
        y_label: Name of the table's numbers.
        log: Whether the vertical axis is logarithmic; numbers that are not positive are left out.
    """

    x: Mapping[str, float]
    x_label: str
    y_label: str
    log: bool

    def check(self, columns: Mapping[str, object]) -> None:
        """Raise UserError where a column does not exist or fewer than two are named."""
        if strange := [name for name in self.x if name not in columns]:
            raise UserError(f"study.curves.x: there is no column '{strange[0]}'; known: {', '.join(columns)}")
        if len(self.x) < 2:
            raise UserError("study.curves.x: a curve needs at least two columns with a number each")


def points(sheet: Sheet, curves: Curves) -> dict[str, list[tuple[float, float, float]]]:
    """By row, (x, mean, standard deviation or 0) of each column with runs, in the order of x."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row, of in sheet.values.items():
        for column in sorted(curves.x, key=lambda name: curves.x[name]):
            if not of[column]:
                continue
            mine = Summary.of(list(of[column].values()))
            if not curves.log or mine.mean > 0:
                spread = 0.0 if math.isnan(mine.std) else mine.std
                found.setdefault(row, []).append((float(curves.x[column]), mine.mean, spread))
    return found


def singles(sheet: Sheet, curves: Curves, row: str) -> tuple[list[float], list[float]]:
    """Places and numbers of the single runs of a row that the picture can show."""
    found = [
        (float(at), value)
        for column, at in curves.x.items()
        for value in sheet.values[row][column].values()
        if not curves.log or value > 0
    ]
    return [at for at, _ in found], [value for _, value in found]


def draw_cells(sheet: Sheet, path: Path) -> None:
    """Draw a panel per column as a PNG; nothing for more than `PANELS` columns, or where no cell has runs."""
    values = {row: {c: numbers for c, numbers in of.items() if numbers} for row, of in sheet.values.items()}
    values = {row: of for row, of in values.items() if of}
    if not values or len(sheet.columns) > PANELS:
        return
    columns = [column for column in sheet.columns if any(column in of for of in values.values())]
    units = {column: UNITS[sheet.cells[column][0].unit] for column in columns}
    # the numbers have their unit already, which a metric with the unit "%" would give them again
    shown = [Metric(name=column, label=f"{column}, {unit}" if unit else column) for column, unit in units.items()]
    wanted = max(cell.wanted for of in sheet.cells.values() for cell in of)
    draw(Table.of(sheet.title, columns, values, wanted, (), Catalogue(shown)), path, first=None)


def draw_curves(sheet: Sheet, curves: Curves, path: Path) -> None:
    """Draw means with their standard deviations over the seeds, and single runs, as a PNG; nothing without runs."""
    lines = points(sheet, curves)
    if not lines:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8.0, 4.6))
    for i, (row, of) in enumerate(lines.items()):
        x, y, spread = zip(*of, strict=True)
        # a bar that reaches below 0 has no place on a logarithmic axis
        low = [min(s, 0.9 * v) if curves.log else s for v, s in zip(y, spread, strict=True)]
        style = "--" if i % 2 else "-"
        bars = axis.errorbar(
            x, y, yerr=[low, spread], fmt=MARKS[i % len(MARKS)] + style, capsize=3, markersize=5, label=row
        )
        axis.plot(*singles(sheet, curves, row), ".", color=bars[0].get_color(), markersize=4, alpha=0.45)
    if curves.log:
        axis.set_yscale("log")
    axis.set_xlabel(curves.x_label, color=INK)
    axis.set_ylabel(curves.y_label, color=INK)
    axis.set_title(sheet.title, fontsize=11, color=INK, loc="left")
    axis.grid(color=BAND, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    counts = sorted({len(of) for by in sheet.values.values() for of in by.values() if of})
    note = f"mean ± standard deviation over n = {', '.join(map(str, counts))} seeds; small dots: single runs"
    figure.text(0.01, 0.01, note, fontsize=8, color=INK)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)
