"""Groups of runs that differ only in their seeds, with labels and summaries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from kdx.report.collect import Run
from kdx.report.knobs import Knob, find_knobs, scene_columns
from kdx.runs.results import Protocol
from kdx.tables.metrics import COSTS as SPENT
from kdx.tables.metrics import Shown
from kdx.tables.statistics import Summary

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
COSTS = tuple(metric.name for metric in SPENT)


@dataclass(frozen=True)
class Group:
    """Repetitions of one experiment.

    Attributes:
        runs: The runs, sorted by seed.
        words: Words that distinguish the group from others, by column.
        facts: The group's value in each descriptive column of the table; None if it has none.
        teaches: Whether a student of this group is the teacher of another run.
    """

    runs: list[Run]
    words: dict[str, str]
    facts: dict[str, Any]
    teaches: bool

    @property
    def label(self) -> str:
        return self.name_without(())

    def name_without(self, columns: Sequence[str]) -> str:
        """The label without the words of some columns: the label of a sweep over them."""
        words = [word for column, word in self.words.items() if column not in columns]
        return " · ".join(words) or self.runs[0].scene["method"]

    @cached_property
    def values(self) -> dict[Protocol, dict[str, Summary]]:
        """Summaries of the metrics that all runs have, for each protocol."""
        summaries: dict[Protocol, dict[str, Summary]] = {}
        for protocol in PROTOCOLS:
            measured = [run.result.data["metrics"][protocol] or {} for run in self.runs]
            names = [name for name in measured[0] if all(_is_value(m.get(name)) for m in measured)]
            summaries[protocol] = {name: Summary.of([m[name] for m in measured]) for name in names}
            for cost in COSTS:
                spent = [run.result.data.get(cost) for run in self.runs]
                if all(_is_value(s) for s in spent):
                    summaries[protocol][cost] = Summary.of([float(s) for s in spent if s is not None])
        return summaries

    def summary(self, metric: str, protocol: Protocol = "last") -> Summary | None:
        """Summary of a metric over the seeds; None if a run lacks it."""
        return self.values[protocol].get(metric)


@dataclass(frozen=True)
class Grouped:
    """All groups, and the columns that distinguish them.

    Attributes:
        groups: The groups, sorted by their facts.
        parts: Columns for parts of the composition: dataset, method, student, teacher, ...
        knobs: Keys that vary within a composition.
        common: Parts of the composition that all groups share.
    """

    groups: list[Group]
    parts: list[str]
    knobs: list[Knob]
    common: dict[str, str]

    @cached_property
    def shown(self) -> Shown:
        """How the metrics of all runs are shown."""
        return Shown([run.result for group in self.groups for run in group.runs])

    @property
    def fidelity(self) -> str | None:
        """The main metric of how closely students follow their teachers; None where nothing measured it."""
        measured = {name for group in self.groups for protocol in PROTOCOLS for name in group.values[protocol]}
        names = [name for name in measured if name.startswith("fidelity/test/") and self.shown[name].shown]
        return next(iter(self.shown.order(sorted(names))), None)

    def best_first(self, metric: str) -> list[int]:
        """Indices of the groups with a metric, in the order of `chosen_on`; teachers come last."""
        by, sign = self.chosen_on(metric), self.shown[metric].sign or 1
        places = {i: -sign * s.mean for i, g in enumerate(self.groups) if (s := g.summary(by)) is not None}
        measured = [(g.teaches, places.get(i, math.inf), i) for i, g in enumerate(self.groups)]
        return [i for _, _, i in sorted(measured) if self.groups[i].summary(metric) is not None]

    def chosen_on(self, metric: str) -> str:
        """The metric that orders groups: on validation where it was measured, since a choice on test flatters."""
        other = metric.replace("test/", "val/", 1)
        return other if any(group.summary(other) is not None for group in self.groups) else metric

    def chosen(self) -> set[int]:
        """Indices of the groups that are best on validation, one for each search.

        A search is the groups of one composition, if at least two of them measured the main metric on validation.
        """
        main = self.shown.main
        on, sign = main.replace("test/", "val/", 1), self.shown[main].sign or 1
        searches: dict[str, list[tuple[float, int]]] = {}
        for i, group in enumerate(self.groups):
            summary = group.summary(on)
            if summary is not None and on != main:
                searches.setdefault(str(group.runs[0].scene), []).append((sign * summary.mean, -i))
        return {-max(found)[1] for found in searches.values() if len(found) > 1}


def group_runs(runs: Sequence[Run]) -> Grouped:
    """Group runs that differ only in their seeds."""
    together: dict[str, dict[str, Run]] = {}
    for run in sorted(runs, key=lambda r: r.result.data["finished"]):
        # runs with equal experiment and seeds are not repetitions: only the last one counts
        together.setdefault(run.group, {})[str(run.seeds)] = run
    members = [sorted(group.values(), key=lambda r: (r.seed, str(r.seeds))) for group in together.values()]
    first = [group[0] for group in members]
    parts, knobs = scene_columns(first), find_knobs(first)
    teachers = {run.result.data["teacher"]["trained_by"] for run in runs if run.result.data["teacher"] is not None}
    taught = [run for run in first if run.result.folder.name not in teachers] or first
    spoken = scene_columns(taught)
    groups = []
    for group in members:
        run = group[0]
        facts = {part: run.scene.get(part) for part in parts} | {k.label: run.experiment.get(k.path) for k in knobs}
        teaches = any(r.result.folder.name in teachers for r in group)
        groups.append(Group(group, _words(run, first, parts if teaches else spoken, knobs), facts, teaches))
    groups.sort(key=lambda g: [(v is None, isinstance(v, str), v) for v in map(_sortable, g.facts.values())])
    common = {part: value for part, value in first[0].scene.items() if part not in parts}
    return Grouped(groups, parts, knobs, {p: v for p, v in common.items() if all(r.scene.get(p) == v for r in first)})


def _words(run: Run, all_of_them: Sequence[Run], parts: Sequence[str], knobs: Sequence[Knob]) -> dict[str, str]:
    """Words of a group; a knob is included only if it varies within the run's own scene."""
    alike = [other for other in all_of_them if other.scene == run.scene]
    words = {part: run.scene[part] for part in parts if part in run.scene} or {"method": run.scene["method"]}
    for knob in knobs:
        value = run.experiment.get(knob.path)
        if any(other.experiment.get(knob.path) != value for other in alike):
            words[knob.label] = f"{knob.label} {show_value(value)}"
    return words


def show_value(value: Any) -> str:
    """Format a config value for readers."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sortable(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _is_value(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
