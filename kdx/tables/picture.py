"""A table as a figure: one panel per column."""

import math
from pathlib import Path

from kdx.tables.gains import EXAMPLES, GAIN
from kdx.tables.table import Table

INK, MUTED, ACCENT, BAND = "#1f2933", "#9aa5b1", "#2a6f97", "#d9e2ec"
PANEL = 2.05  # width of a panel in inches; five fit a README at about their own size
LEAST = 40  # units of the last shown digit that a panel is wide at least
WRAP = 22  # characters of a panel's title in one line


def draw(table: Table, path: Path, first: str | None) -> None:
    """Draw means with their standard deviations and single runs, and differences with their intervals, as a PNG.

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
    labels = [row if table.n[row] >= table.wanted[row] else f"{row} ({table.count(row)})" for row in rows]
    columns = [column for column in table.printed_columns if column != EXAMPLES]
    margin = 0.3 + 0.085 * max(map(len, labels))
    width, height = PANEL * len(columns) + margin, 0.42 * len(rows) + 2.1
    figure, axes = plt.subplots(1, len(columns), figsize=(width, height), sharey=True, squeeze=False)
    for axis, column in zip(axes[0], columns, strict=True):
        scale = table.form(column).scale
        for place, row in enumerate(rows):
            if column == GAIN:
                _difference(axis, table, row, place, scale)
            else:
                _row(axis, table, row, column, place, scale)
        if column == GAIN:
            axis.axvline(0, color=MUTED, linewidth=0.8)
        reference = table.cells.get(first or "", {}).get(column)
        if reference is not None:
            axis.axvline(reference.mean * scale, color=INK, linewidth=1, linestyle="--")
            if not math.isnan(reference.std):
                low, high = ((reference.mean + sign * reference.std) * scale for sign in (-1, 1))
                axis.axvspan(low, high, color=BAND, zorder=0)
        axis.set_title(_wrapped(table.heading(column)), fontsize=9, color=INK, loc="left")
        axis.grid(axis="x", color=BAND, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
        axis.tick_params(length=0, labelsize=9, colors=INK)
        axis.margins(x=0.15)
        axis.ticklabel_format(axis="x", useOffset=False, style="plain")
        _widened(axis, LEAST * 10.0 ** -table.form(column).digits)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.spines["bottom"].set_color(MUTED)
    axes[0][0].set_yticks(range(len(rows)), labels, fontsize=10)
    axes[0][0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(table.title, x=0.01, ha="left", fontsize=12, color=INK, weight="bold")
    note = _note(table, first, GAIN in columns, width)
    figure.text(0.01, 0.1 / height, note, fontsize=9, color=INK, va="bottom")
    foot = (0.2 + 0.16 * (note.count("\n") + 1)) / height
    figure.tight_layout(rect=(0, foot, 1, 0.98), w_pad=1.4)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _widened(axis, least: float) -> None:  # noqa: ANN001
    """Give an axis at least this width, so that it does not magnify what no digit of the table shows."""
    low, high = axis.get_xlim()
    if high - low < least:
        middle = (low + high) / 2
        axis.set_xlim(middle - least / 2, middle + least / 2)


def _row(axis, table: Table, row: str, column: str, place: int, scale: float) -> None:  # noqa: ANN001
    summary = table.cells[row].get(column)
    if summary is None:
        return
    each = [value * scale for value in table.values.get(row, {}).get(column, {}).values()]
    axis.plot(each, [place] * len(each), "|", color=MUTED, markersize=9, zorder=1)
    spread = 0.0 if math.isnan(summary.std) else summary.std * scale
    axis.errorbar(summary.mean * scale, place, xerr=spread, fmt="o", color=ACCENT, capsize=3, markersize=5, zorder=3)


def _difference(axis, table: Table, row: str, place: int, scale: float) -> None:  # noqa: ANN001
    gain = table.gains.get(row)
    if gain is None:
        return
    own, base = (table.values.get(name or "", {}).get(table.columns[0], {}) for name in (row, table.baseline))
    each = [(own[seed] - base[seed]) * scale for seed in gain.seeds if seed in own and seed in base]
    axis.plot(each, [place] * len(each), "|", color=MUTED, markersize=9, zorder=1)
    axis.plot(gain.gain.mean * scale, place, "o", color=ACCENT, markersize=5, zorder=3)
    for interval, line in ((gain.whole, 1.0), (gain.interval, 3.0)):
        if interval is not None and not math.isnan(interval[0]):
            axis.plot([end * scale for end in interval], [place, place], "-", color=ACCENT, linewidth=line, alpha=0.55)


def _note(table: Table, first: str | None, gains: bool, width: float) -> str:
    seeds = sorted({n for row, n in table.n.items() if row != first})
    over = f" over n = {', '.join(map(str, seeds))} seeds"
    told = [
        f"dots and bars: mean ± standard deviation{over}; ticks: single runs"
        if table.values
        else f"dots and bars: mean ± standard deviation{over}"
    ]
    if gains:
        thin = ", thin: over seeds and examples" if EXAMPLES in table.printed_columns else ""
        told.append(f"of differences, thick bars: 95 % interval over seeds{thin}")
    if first:
        told.append(f"dashed line and band: {first}, mean ± standard deviation (n = {table.n[first]})")
    lines = [""]
    for part in told:
        longer = f"{lines[-1]}; {part}".removeprefix("; ")
        if lines[-1] and len(longer) > 13 * width:
            lines.append(part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _wrapped(title: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(title.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓"), WRAP))
