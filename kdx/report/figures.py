"""The figures of a report as PNG files, for papers and slides."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdx.core.metric import Metric
from kdx.report.curves import Curve
from kdx.report.groups import Group, Grouped
from kdx.report.payload import sweeps_of
from kdx.report.predicted import Predicted
from kdx.tables.picture import ACCENT, BAND, INK, MUTED

LINES = 6  # lines per figure; more are indistinguishable
NAMES = 15  # maximum number of labelled dots
STYLES = [(ACCENT, "-"), (INK, "-"), (MUTED, "-"), (ACCENT, "--"), (INK, "--"), (MUTED, "--")]
BANDS = "line: mean over seeds; band: one standard deviation each way"
SPREAD = f"{BANDS}; small dots: single runs"
Axes = Any  # a matplotlib type; matplotlib is imported only for drawing


def draw_figures(
    grouped: Grouped, training: Sequence[dict[str, Curve]], predicted: Sequence[Predicted | None], folder: Path
) -> list[Path]:
    """Draw all figures for which there is data; each shows the first groups of `best_first`.

    Returns:
        The written files.
    """
    main, fidelity = grouped.shown[grouped.shown.main], grouped.fidelity
    best = grouped.best_first(main.name)
    written = []
    for sweep in sweeps_of(grouped):
        name = f"sweep_{sweep['path'].replace('.', '_')}.png"
        written += _draw(folder / name, lambda axes, sweep=sweep: _sweep(axes, grouped, sweep, main))
    trained = [i for i in best if main.name in training[i]][:LINES]
    if trained:
        written += _draw(folder / "training.png", lambda axes: _training(axes, grouped, training, trained, main))
    others = {"fidelity": fidelity, "cost": "seconds"}
    for name, other in ((name, grouped.shown[other]) for name, other in others.items() if other is not None):
        both = [grouped.groups[i] for i in best if grouped.groups[i].summary(other.name)]
        if len(both) > 1:
            written += _draw(folder / f"{name}.png", lambda axes, b=both, o=other: _scatter(axes, b, o, main))
    shown = next((i for i in best if (p := predicted[i]) is not None and "teacher" in p.bins), None)
    shown = next((i for i in best if predicted[i] is not None), None) if shown is None else shown
    if shown is not None and (of := predicted[shown]) is not None:
        label = grouped.groups[shown].label
        written += _draw(folder / "reliability.png", lambda axes: _reliability(axes, of, label))
        difference = of.difference()
        if difference is not None and "matrix" in difference:
            written += _draw(folder / "confusion.png", lambda axes: _confusion(axes, difference["matrix"], label))
    return written


def _draw(path: Path, fill: Callable[[Axes], None]) -> list[Path]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
    axes.grid(axis="y", color=BAND, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    fill(axes)
    axes.xaxis.label.set_color(INK)
    axes.title.set_color(INK)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return [path]


def _title(axes: Axes, text: str, below: str, note: str = "") -> None:
    axes.set_title(text, fontsize=10, loc="left")
    axes.set_xlabel(below, fontsize=9, loc="right")
    if note:
        axes.figure.supxlabel(note, fontsize=7.5, x=0.01, ha="left", color=INK)


def _single(group: Group, metric: Metric) -> list[float]:
    """The numbers of the group's runs, as shown."""
    data = [run.result.data for run in group.runs]
    found = [d[metric.name] if metric.name in d else d["metrics"]["last"].get(metric.name) for d in data]
    return [float(value) * metric.scale for value in found if value is not None]


def _scaled(group: Group, metric: Metric) -> tuple[float, float]:
    summary, scale = group.summary(metric.name), metric.scale
    assert summary is not None
    return summary.mean * scale, 0.0 if math.isnan(summary.std) else summary.std * scale


def _line(axes: Axes, place: int, x: Sequence[float], mean: list[float], std: list[float], label: str) -> None:
    colour, style = STYLES[place]
    axes.plot(x, mean, style, color=colour, linewidth=1.6, label=label, zorder=LINES - place + 2)
    low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)


def _sweep(axes: Axes, grouped: Grouped, sweep: dict[str, Any], main: Metric) -> None:
    xs: set[float] = set()
    for place, family in enumerate(sweep["families"][:LINES]):
        pairs = zip(family["x"], (grouped.groups[i] for i in family["members"]), strict=True)
        points = [(x, *_scaled(group, main)) for x, group in pairs if group.summary(main.name)]
        if len(points) > 1:
            x, mean, std = (list(column) for column in zip(*points, strict=True))
            _line(axes, place, x, mean, std, family["label"])
            axes.plot(x, mean, "o", color=STYLES[place][0], markersize=4)
            for value, i in zip(family["x"], family["members"], strict=True):
                each = _single(grouped.groups[i], main)
                axes.plot([value] * len(each), each, ".", color=STYLES[place][0], markersize=3, alpha=0.5)
            xs |= set(x)
    ticks = sorted(xs)
    if ticks and ticks[0] > 0 and len(ticks) > 2 and ticks[-1] / ticks[0] >= 8:
        axes.set_xscale("log")
        axes.minorticks_off()
    if len(ticks) <= 12:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    _title(axes, main.directed, sweep["path"], SPREAD)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)


def _training(
    axes: Axes, grouped: Grouped, training: Sequence[dict[str, Curve]], shown: Sequence[int], main: Metric
) -> None:
    scale = main.scale
    for place, i in enumerate(shown):
        epochs, mean, std = training[i][main.name]
        spread = [0.0 if s is None else s * scale for s in std]
        _line(axes, place, epochs, [m * scale for m in mean], spread, grouped.groups[i].label)
    _title(axes, f"{main.directed} while training", "epoch", BANDS)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)


def _scatter(axes: Axes, groups: Sequence[Group], other: Metric, main: Metric) -> None:
    for colour, teaches in ((ACCENT, False), (MUTED, True)):
        pairs = [(_scaled(g, other), _scaled(g, main)) for g in groups if g.teaches == teaches]
        if pairs:
            x, sx, y, sy = zip(*((*a, *b) for a, b in pairs), strict=True)
            axes.errorbar(x, y, xerr=sx, yerr=sy, fmt="o", color=colour, ecolor=colour, markersize=4, elinewidth=0.8)
    axes.margins(x=0.1)
    for group in groups:
        colour = MUTED if group.teaches else ACCENT
        runs = [_single(Group([run], {}, {}, False), m) for run in group.runs for m in (other, main)]
        pairs = [(x[0], y[0]) for x, y in zip(runs[::2], runs[1::2], strict=True) if x and y]
        axes.plot([x for x, _ in pairs], [y for _, y in pairs], ".", color=colour, markersize=3, alpha=0.5)
    _title(
        axes,
        main.directed,
        other.directed,
        "dots and bars: mean ± standard deviation over seeds; small dots: single runs",
    )
    # labels of the best groups, without overlaps
    places = [(group.label, (_scaled(group, other)[0], _scaled(group, main)[0])) for group in groups[:NAMES]]
    names = [axes.annotate(text, at, (5, 4), textcoords="offset points", fontsize=7, color=INK) for text, at in places]
    axes.figure.draw_without_rendering()
    taken: list[Any] = []
    for name in names:
        box = name.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            name.remove()
        else:
            taken.append(box)


def _reliability(axes: Axes, predicted: Predicted, label: str) -> None:
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
    colours = {"student": ACCENT, "teacher": INK}
    for role, rows in predicted.reliability().items():
        _, confidence, accuracy = zip(*rows, strict=True)
        axes.plot(confidence, accuracy, "o-", color=colours[role], markersize=4, linewidth=1.4, label=role)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)
    _title(
        axes, f"Share that is right: {label}", "confidence", "predictions of all seeds together, in bins of confidence"
    )


def _confusion(axes: Axes, matrix: list[list[float]], label: str) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    most = max(abs(v) for row in matrix for v in row) or 1.0
    colours = LinearSegmentedColormap.from_list("difference", ["#4a5560", "#ffffff", ACCENT])
    image = axes.imshow(matrix, cmap=colours, vmin=-most, vmax=most)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(range(len(matrix)))
    axes.set_yticks(range(len(matrix)))
    axes.set_ylabel("class", fontsize=9)
    axes.figure.colorbar(image, ax=axes, shrink=0.8).outline.set_visible(False)
    _title(axes, f"Confusion, student minus teacher: {label}", "prediction")
