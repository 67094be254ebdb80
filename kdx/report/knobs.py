"""Config keys that vary between groups of runs, and the sweeps among them."""

import json
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from kdx.report.collect import Run

NAMED = ("dataset", "method", "student", "teacher")
VAGUE = ("to", "start", "end", "value", "since", "until", "name", "epochs", "steps")  # ambiguous last parts of paths
LOCKSTEP = 3  # values from which two keys that vary together count as one sweep


@dataclass(frozen=True)
class Knob:
    """A config key that varies between runs of the same scene.

    Attributes:
        path: Its path in the config.
        label: The shortest suffix of the path that is unique among the knobs.
    """

    path: str
    label: str


@dataclass(frozen=True)
class Curve:
    """Groups that differ in one knob only.

    Attributes:
        members: Indices of the groups, by the knob's value.
        values: The knob's values.
        along: Labels of knobs that vary together with this one, such as the second of two weights.
    """

    members: list[int]
    values: list[float]
    along: list[str]


def find_knobs(groups: Sequence[Run]) -> list[Knob]:
    """Find the keys that vary within a scene, from one run per group.

    Between scenes, such as KD and DKD, all keys of the methods differ; their names already describe that. Of keys that
    always have equal values, such as an interpolated one, only the shortest path is kept.
    """
    paths: set[str] = set()
    for scene in _scenes(groups):
        members = [groups[i] for i in scene]
        columns: dict[tuple[Hashable, ...], str] = {}
        for path in sorted({p for run in members for p in run.experiment}, key=lambda p: (p.count("."), p)):
            if path.startswith("teacher.training."):
                continue  # determined by the teacher and the run's own config groups
            column = tuple(_hashable(run.experiment.get(path)) for run in members)
            if len(set(column)) > 1:
                columns.setdefault(column, path)
        paths |= set(columns.values())
    return [Knob(path, _label(path, paths)) for path in sorted(paths)]


def scene_columns(groups: Sequence[Run]) -> list[str]:
    """The parts of a scene that distinguish the groups: named ones that vary, and others that add information.

    A part that some groups lack and that is otherwise constant adds none, such as the teacher of methods without one.
    """
    chosen: list[str] = []
    names = dict.fromkeys([*NAMED, *sorted({name for run in groups for name in run.scene})])
    for name in names:
        values = {run.scene[name] for run in groups if name in run.scene}
        if len(values) > 1 and (name in NAMED or not _follows(groups, name, chosen)):
            chosen.append(name)
    return chosen


def curves(groups: Sequence[Run], knob: Knob, knobs: Sequence[Knob]) -> list[Curve]:
    """Curves along a numeric knob, each with at least two groups, longest first."""
    found = []
    for scene in _scenes(groups):
        numeric = [i for i in scene if is_number(groups[i].experiment.get(knob.path))]
        along = [other for other in knobs if other != knob and _lockstep(groups, numeric, knob, other)]
        families: dict[Hashable, list[int]] = defaultdict(list)
        for i in numeric:
            rest = tuple(_hashable(groups[i].experiment.get(o.path)) for o in knobs if o != knob and o not in along)
            families[rest].append(i)
        for members in families.values():
            members.sort(key=lambda i: groups[i].experiment[knob.path])
            if len(members) > 1:
                values = [float(groups[i].experiment[knob.path]) for i in members]
                found.append(Curve(members, values, [other.label for other in along]))
    return sorted(found, key=lambda curve: -len(curve.members))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scenes(groups: Sequence[Run]) -> list[list[int]]:
    scenes: dict[str, list[int]] = defaultdict(list)
    for i, run in enumerate(groups):
        scenes[json.dumps(run.scene, sort_keys=True)].append(i)
    return list(scenes.values())


def _follows(groups: Sequence[Run], name: str, from_names: Sequence[str]) -> bool:
    seen: dict[tuple[str | None, ...], str | None] = {}
    return all(
        seen.setdefault(tuple(run.scene.get(n) for n in from_names), run.scene.get(name)) == run.scene.get(name)
        for run in groups
    )


def _lockstep(groups: Sequence[Run], members: Sequence[int], knob: Knob, other: Knob) -> bool:
    pairs = {
        (_hashable(groups[i].experiment.get(knob.path)), _hashable(groups[i].experiment.get(other.path)))
        for i in members
    }
    return len(pairs) >= LOCKSTEP and len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def _hashable(value: Any) -> Hashable:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _label(path: str, paths: set[str]) -> str:
    parts = path.split(".")
    for length in range(1, len(parts)):
        end = ".".join(parts[-length:])
        if not any(other != path and f".{other}".endswith(f".{end}") for other in paths):
            return end if end not in VAGUE else ".".join(parts[-2:])
    return path
