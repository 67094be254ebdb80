"""A table as a picture: one panel for each column."""

import math
from pathlib import Path

from kdx.tables.table import Table

INK, MUTED, ACCENT, BAND = "#1f2933", "#9aa5b1", "#2a6f97", "#d9e2ec"


def draw(table: Table, path: Path, first: str | None) -> None:
    """Write the means with their standard deviations as a PNG.

    Args:
        table: What to show.
        path: The file.
        first: Row that is drawn as a reference line across the panel, such as the teacher; None for none.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in table.cells if row != first]
    figure, axes = plt.subplots(
        1,
        len(table.columns),
        figsize=(2.6 * len(table.columns) + 1.2, 0.5 * len(rows) + 1.9),
        sharey=True,
        squeeze=False,
    )
    for axis, column in zip(axes[0], table.columns, strict=True):
        label, scale = table.heading(column), table.form(column).scale
        for place, row in enumerate(rows):
            summary = table.cells[row].get(column)
            if summary is None:
                continue
            spread = 0.0 if math.isnan(summary.std) else summary.std * scale
            axis.errorbar(summary.mean * scale, place, xerr=spread, fmt="o", color=ACCENT, capsize=3, markersize=6)
        reference = table.cells.get(first or "", {}).get(column)
        if reference is not None:
            axis.axvline(reference.mean * scale, color=INK, linewidth=1, linestyle="--")
            if not math.isnan(reference.std):
                low, high = ((reference.mean + sign * reference.std) * scale for sign in (-1, 1))
                axis.axvspan(low, high, color=BAND, zorder=0)
        axis.set_title(label, fontsize=10, color=INK, loc="left")
        axis.grid(axis="x", color=BAND, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(length=0, labelsize=9, colors=INK)
        axis.margins(x=0.15)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.spines["bottom"].set_color(MUTED)
    axes[0][0].set_yticks(range(len(rows)), rows)
    axes[0][0].set_ylim(len(rows) - 0.5, -0.5)
    seeds = sorted(set(table.n.values()))
    dashed = f"; dashed: {first}" if first else ""
    note = f"mean ± standard deviation over n = {', '.join(map(str, seeds))} seeds{dashed}"
    figure.suptitle(table.title, x=0.01, ha="left", fontsize=12, color=INK, weight="bold")
    figure.text(0.01, 0.02, note, fontsize=8, color=INK)
    figure.tight_layout(rect=(0, 0.06, 1, 0.97))
    figure.savefig(path, dpi=150)
    plt.close(figure)
