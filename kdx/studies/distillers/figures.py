"""Figures of a search study, as PNG files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdx.studies.distillers.history import History, Trial
from kdx.studies.distillers.rank import interval, kendall
from kdx.studies.distillers.space import SLOTS, Space
from kdx.tables.picture import ACCENT, BAND, INK, MUTED

if TYPE_CHECKING:
    from kdx.studies.distillers.findings import Findings

COLOURS = (ACCENT, "#c8553d", "#588b8b", "#8f6593", "#b08900", MUTED)
ROW = 0.2  # height of a row of the survival figure, inches
HALF = 0.8  # half the width of a box of the pipeline


def _start(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), squeeze=False)


def _finish(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _plain(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=10, color=INK, loc="left")
    axis.tick_params(length=0, labelsize=9, colors=INK)
    axis.grid(color=BAND, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def draw_curves(findings: "Findings", path: Path) -> None:
    """Best fitness so far over the trainings, and fitness against the final metric.

    Searches with another fitness than `main` are left out on the left, since their numbers are not comparable.
    """
    study = findings.study
    figure, axes = _start(11, 4.2, 2)
    left, right = axes[0]
    rule = study.searches[study.main].fitness
    alike = {name: of for name, of in findings.histories.items() if study.searches[name].fitness == rule}
    for place, (name, of) in enumerate(alike.items()):
        curves = [history.best_so_far() for history in of.values() if history.trials]
        length = min(map(len, curves), default=0)
        if not length:
            continue
        steps = range(1, length + 1)
        columns = [[curve[i] for curve in curves] for i in range(length)]
        mean = [sum(column) / len(column) for column in columns]
        heavy, colour = name in (study.main, study.rival), COLOURS[place % len(COLOURS)]
        left.plot(
            steps, mean, color=colour, linewidth=2.2 if heavy else 1, linestyle="-" if heavy else "--", label=name
        )
        if heavy:
            for curve in curves:
                left.plot(steps, curve[:length], color=colour, linewidth=0.7, alpha=0.5)
    _plain(left, "best fitness so far: means over the seeds, and single searches (thin)")
    left.set_xlabel("trainings", fontsize=9)
    left.legend(fontsize=8, frameon=False, loc="upper right")
    form = findings.shown[study.metric]
    for name, marker in ((study.main, "o"), (study.rival, "x")):
        groups = findings.pairs(name) if name in findings.histories else []
        for place, group in enumerate(groups):
            x, y = [-a for a, _ in group], [abs(b) * form.scale for _, b in group]
            label = f"{name}, seed {list(findings.histories[name])[place]}"
            right.plot(x, y, marker, color=COLOURS[place % len(COLOURS)], markersize=5, alpha=0.8, label=label)
    groups = findings.pairs(study.main) if study.main in findings.histories else []
    taus = [tau for group in groups if (tau := kendall(group)) == tau]
    told = ""
    if taus:
        low, high = interval(groups, 0)
        told = f"\nKendall's tau {sum(taus) / len(taus):.2f} [{low:.2f}, {high:.2f}] in {study.main}"
    _plain(right, f"proxy fitness and {form.heading} at full length{told}")
    right.set_xlabel("fitness", fontsize=9)
    right.set_ylabel(form.heading, fontsize=9)
    if right.has_data():
        right.legend(fontsize=8, frameon=False)
    else:
        right.set_visible(False)
    _finish(figure, path)


def draw_survival(space: Space, histories: Sequence[History], title: str, path: Path, bins: int = 8) -> None:
    """Share of each option among the trained candidates over the course of searches; a cross where one dropped it.

    Args:
        space: The space before any drop.
        histories: Histories of the same search with different seeds.
        title: Heading.
        path: The output file.
        bins: Parts of a search.
    """
    rows = [(slot, option) for slot in SLOTS for option in space.options(slot)]
    length = min((history.spent for history in histories), default=0)
    bins = max(1, min(bins, length))
    edges = [length * (i + 1) // bins for i in range(bins)]
    parts: list[list[Trial]] = [[] for _ in range(bins)]
    figure, axes = _start(7, ROW * len(rows) + 1.2)
    axis = axes[0][0]
    for history in histories:
        trained = [trial for trial in history.trials if trial.trained]
        for i, trial in enumerate(trained[:length]):
            parts[next(place for place, edge in enumerate(edges) if i < edge)].append(trial)
        for drop in history.drops:
            spent = sum(t.trained for t in history.trials if t.number < drop.after)
            place = next((place for place, edge in enumerate(edges) if spent <= edge), bins - 1)
            axis.plot(place + 0.5, rows.index((drop.slot, drop.option)), "x", color=COLOURS[1], markersize=7)
    counts = {slot: [Counter(getattr(t.genotype, slot) for t in part) for part in parts] for slot in SLOTS}
    shares = [
        [count[option] / max(1, len(part)) for count, part in zip(counts[slot], parts, strict=True)]
        for slot, option in rows
    ]
    axis.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=max(0.5, *map(max, shares)))
    for i in range(1, len(rows)):
        if rows[i][0] != rows[i - 1][0]:
            axis.axhline(i - 0.5, color=MUTED, linewidth=0.8)
    names = [f"{slot}: {option:g}" if isinstance(option, float | int) else f"{slot}: {option}" for slot, option in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set_xticks(range(bins), [str(edge) for edge in edges], fontsize=8)
    axis.set_title(title, fontsize=10, color=INK, loc="left")
    axis.set_xlabel("trainings; darker: a larger share of them; cross: dropped by a search", fontsize=9)
    axis.tick_params(length=0, colors=INK)
    _finish(figure, path)


def draw_pipeline(space: Space, trial: Trial, title: str, path: Path) -> None:
    """A distiller as a pipeline: both networks pass the same transforms."""
    figure, axes = _start(11, 2.6)
    axis = axes[0][0]
    axis.axis("off")
    axis.set_xlim(0, 10)
    axis.set_ylim(0, 3)
    genotype = trial.genotype
    roles = space.inputs[genotype.input]
    at = "" if genotype.temperature is None else f", T = {genotype.temperature:g}"
    steps = [("attention", genotype.attention), ("scope", genotype.scope), ("normalise", genotype.normalise + at)]
    what = "logits" if roles == "logits" else "all stages" if roles is None else ", ".join(roles)
    layered = what != "logits" and genotype.chain.compares_channels
    for y, who in ((2.2, "student"), (0.8, "teacher")):
        aligned = "\n1 x 1 layer where\nchannels differ" if who == "student" and layered else ""
        boxes = [f"{who}\n{what}{aligned}", *(f"{slot}\n{option}" for slot, option in steps)]
        for i, text in enumerate(boxes):
            empty = i > 0 and steps[i - 1][1] == "none"
            _box(axis, 1 + 2 * i, y, text, MUTED if empty else INK)
            target = (1 + 2 * (i + 1) - HALF, y) if i < 3 else (9 - HALF, 1.5)
            _arrow(axis, (1 + 2 * i + HALF, y), target)
    _box(axis, 9, 1.5, f"{genotype.distance}\nx {genotype.weight:g}", COLOURS[1])
    axis.set_title(title, fontsize=10, color=INK, loc="left")
    _finish(figure, path)


def _box(axis: Any, x: float, y: float, text: str, colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner, size = (x - HALF + 0.05, y - 0.45), (2 * HALF - 0.1, 0.9)
    axis.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0.05", facecolor="white", edgecolor=colour))
    axis.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)


def _arrow(axis: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": MUTED})
