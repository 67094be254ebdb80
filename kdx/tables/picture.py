"""A table as a figure: one panel per column."""

import math
from pathlib import Path

from kdx.tables.table import Table

INK, MUTED, ACCENT, BAND = "#1f2933", "#9aa5b1", "#2a6f97", "#d9e2ec"
PANEL = 1.85  # width of a panel in inches; five fit a README at about their own size


def draw(table: Table, path: Path, first: str | None) -> None:
    """Draw the means with their standard deviations as a PNG.

    Args:
        table: The table to draw.
        path: The output file.
        first: Row drawn as a reference line across the panels, such as the teacher; None for none.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    rows = [row for row in table.cells if row != first]
    margin = 0.3 + 0.085 * max(map(len, rows))
    width = PANEL * len(table.columns) + margin
    figure, axes = plt.subplots(
        1, len(table.columns), figsize=(width, 0.42 * len(rows) + 1.7), sharey=True, squeeze=False
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
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
        axis.tick_params(length=0, labelsize=9, colors=INK)
        axis.margins(x=0.15)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.spines["bottom"].set_color(MUTED)
    axes[0][0].set_yticks(range(len(rows)), rows, fontsize=10)
    axes[0][0].set_ylim(len(rows) - 0.5, -0.5)
    seeds = sorted(set(table.n.values()))
    shown = "mean ± standard deviation over n = {} seeds".format(", ".join(map(str, seeds)))
    note = f"{shown}; dashed line and band: {first}" if first else shown
    figure.suptitle(table.title, x=0.01, ha="left", fontsize=12, color=INK, weight="bold")
    figure.text(0.01, 0.02, note, fontsize=9, color=INK)
    figure.tight_layout(rect=(0, 0.07, 1, 0.98), w_pad=1.4)
    figure.savefig(path, dpi=150)
    plt.close(figure)
