"""The page's data as JSON values."""

import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from kdx.core.errors import DamagedError
from kdx.core.metric import Metric, short
from kdx.core.task import CLASSES
from kdx.report.collect import Collected, Run
from kdx.report.curves import Curve, Line, mean_curves, read_curves
from kdx.report.groups import COSTS, PROTOCOLS, Group, Grouped
from kdx.report.knobs import curves
from kdx.report.predicted import Predicted, read_predicted
from kdx.runs.folder import DETECTIONS
from kdx.tables.footnotes import PROTOCOLS as PROTOCOL_NAMES
from kdx.tables.metrics import Shown
from kdx.tables.statistics import Summary
from kdx.tables.table import clamped


def predictions_of(grouped: Grouped, problems: list[str]) -> list[Predicted | None]:
    """Reliability and confusion of each group; None where its runs kept no predictions or have no classes.

    Args:
        grouped: The groups.
        problems: Gets a line for each damaged file, which is left out.
    """
    return [
        read_predicted([r.result.folder for r in g.runs], int(g.runs[0].config["dataset"]["num_classes"]), problems)
        if _has_classes(g.runs[0])
        else None
        for g in grouped.groups
    ]


def _has_classes(run: Run) -> bool:
    task = run.result.data.get("task")  # missing in older results, all of classes
    return (task is None or task["kind"] == CLASSES) and "num_classes" in run.config["dataset"]


def pictures_of(grouped: Grouped) -> dict[int, str]:
    """The drawn detections of the first run of each group, as addresses that hold the picture itself."""
    found = {}
    for i, group in enumerate(grouped.groups):
        path = group.runs[0].result.folder / DETECTIONS
        if path.is_file():
            found[i] = f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"
    return found


def curves_of(grouped: Grouped, problems: list[str]) -> list[dict[str, Curve]]:
    """Training curves of each group, by metric; `problems` gets a line for each damaged record, which is left out."""

    def read(run: Run) -> list[Line]:
        try:
            return read_curves(run.result.folder)
        except DamagedError as error:
            problems.append(f"{error}; its curves are left out")
            return []

    return [mean_curves([read(run) for run in group.runs]) for group in grouped.groups]


def sweeps_of(grouped: Grouped) -> list[dict[str, Any]]:
    """One sweep per numeric knob that varies alone, with the groups along each curve."""
    first = [group.runs[0] for group in grouped.groups]
    sweeps = []
    for knob in grouped.knobs:
        families = [
            {
                "label": grouped.groups[curve.members[0]].name_without([knob.label, *curve.along]),
                "members": curve.members,
                "x": curve.values,
                "along": curve.along,
            }
            for curve in curves(first, knob, grouped.knobs)
        ]
        if families:
            sweeps.append({"path": knob.path, "label": knob.label, "families": families})
    return sweeps


def payload(
    found: Collected,
    grouped: Grouped,
    training: Sequence[dict[str, Curve]],
    predicted: Sequence[Predicted | None],
    title: str,
) -> dict[str, Any]:
    """All data embedded in the page."""
    runs = [(i, run) for i, group in enumerate(grouped.groups) for run in group.runs]
    present = dict.fromkeys(name for g in grouped.groups for p in PROTOCOLS for name in g.values[p] if name != "epoch")
    shown, chosen = grouped.shown, grouped.chosen()
    forms = {name: shown[name] for name in present}
    return {
        "title": title,
        "protocols": {name: PROTOCOL_NAMES[name] for name in PROTOCOLS},
        "unfinished": [folder.name for folder in found.unfinished],
        "failed": [folder.name for folder in found.failed],
        "problems": found.problems,
        "common": grouped.common,
        "parts": grouped.parts,
        "knobs": [{"path": knob.path, "label": knob.label} for knob in grouped.knobs],
        "metrics": [shown.record(name) for name in shown.order(present)],
        "main": shown.main,
        "fidelity": grouped.fidelity,
        "columns": _columns(shown, present),
        "costs": COSTS,
        "groups": [_group(group, i in chosen, forms) for i, group in enumerate(grouped.groups)],
        "runs": [_run(i, run) for i, run in runs],
        "configs": _configs([run for _, run in runs]),
        "sweeps": sweeps_of(grouped),
        "training": _by_metric(training),
        "pictures": pictures_of(grouped),
        "reliability": {i: p.reliability() for i, p in enumerate(predicted) if p is not None},
        "confusion": {i: d for i, p in enumerate(predicted) if p is not None and (d := p.difference()) is not None},
    }


def _columns(shown: Shown, present: Iterable[str]) -> list[str]:
    """Metrics that the table shows at first: the main ones on the test set, and what a run costs."""
    main = [n for n in shown.order(present) if shown[n].shown and n.rsplit("/", 1)[0] in ("test", "fidelity/test")]
    chosen_on = shown.main.replace("test/", "val/", 1)
    return [*([chosen_on] if chosen_on in set(present) else []), *main, COSTS[0]]


def _group(group: Group, chosen: bool, shown: Mapping[str, Metric]) -> dict[str, Any]:
    return {
        "label": group.label,
        "facts": {name: _plain(value) for name, value in group.facts.items()},
        "teaches": group.teaches,
        "n": len(group.runs),
        "chosen": chosen,
        "values": {
            p: {name: _summary(s, shown[name]) for name, s in group.values[p].items() if name != "epoch"}
            for p in PROTOCOLS
        },
    }


def _summary(summary: Summary, metric: Metric) -> list[float | None]:
    half = summary.std * _half_width(summary.n)
    ends = clamped((summary.mean - half, summary.mean + half), metric)
    return [_short(v) for v in (summary.mean, summary.std, *ends)]


@cache
def _half_width(n: int) -> float:
    """Half width of the interval of a mean for a standard deviation of 1; cached for thousands of summaries."""
    return Summary(0.0, 1.0, n).interval[1]


def _run(group: int, run: Run) -> dict[str, Any]:
    data, threads = run.result.data, run.result.data["device"]["threads"]
    return {
        "group": group,
        "name": run.result.folder.name,
        "seed": run.seed,
        "values": {
            p: {k: _short(v) for k, v in (data["metrics"][p] or {}).items() if isinstance(v, int | float)}
            | {cost: data[cost] for cost in COSTS if cost in data}
            for p in PROTOCOLS
        },
        "commit": None if data["code"]["commit"] is None else data["code"]["commit"][:10],
        "dirty": data["code"]["dirty"],
        "device": f"{data['device']['name']}, {threads} thread{'s' if threads != 1 else ''}",
        "together": data.get("fused"),  # missing in older results
        "versions": f"torch {data['versions']['torch']}, Python {data['versions']['python']}",
        "teacher": None if data["teacher"] is None else data["teacher"]["sha256"][:12],
        "finished": data["finished"],
    }


def _configs(runs: Sequence[Run]) -> dict[str, Any]:
    """The first config and each run's differences from it, since runs of a sweep share most values."""
    leaves = [{path: _plain(value) for path, value in run.leaves.items()} for run in runs]
    base = leaves[0]
    own = [
        {path: of.get(path) for path in sorted(base.keys() | of.keys()) if of.get(path) != base.get(path)}
        for of in leaves
    ]
    return {"base": base, "own": own}


def _by_metric(training: Sequence[dict[str, Curve]]) -> dict[str, dict[int, list[list[float | None]]]]:
    by_metric: dict[str, dict[int, list[list[float | None]]]] = {}
    for i, of in enumerate(training):
        for name, (epochs, mean, std) in of.items():
            shown = [[_short(v) for v in values] for values in (epochs, mean, std)]
            by_metric.setdefault(name, {})[i] = shown
    return by_metric


def _plain(value: Any) -> Any:
    """A config value for JSON, which has no infinity or NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: float | None) -> float | None:
    """The digits that the tables round from, which halve the page; null for non-finite values."""
    return None if value is None or not math.isfinite(value) else short(value)
