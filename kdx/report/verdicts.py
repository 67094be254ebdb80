"""The text of a comparison: warnings, config, results with their intervals, and notes."""

import json
import math
from collections.abc import Mapping, Sequence

from kdx.config.identity import differences
from kdx.core.errors import UserError, did_you_mean
from kdx.core.metric import Metric, fixed
from kdx.report.collect import Run
from kdx.report.groups import show_value
from kdx.report.knobs import NAMED
from kdx.runs.results import Protocol, Result
from kdx.tables.examples import outcomes_of
from kdx.tables.footnotes import PROTOCOLS
from kdx.tables.gains import show_interval, signed
from kdx.tables.metrics import COSTS, Shown
from kdx.tables.multiplicity import survivors
from kdx.tables.statistics import Comparison, Summary, caution, compare, grain_of

BUDGETS = (("steps", "steps"), ("epochs", "epochs"), ("training examples", "training"), ("test examples", "test"))
TIMES = tuple(metric.name for metric in COSTS if metric.name != "parameters")


def report(
    a: Sequence[Run], b: Sequence[Run], metrics: Sequence[str], protocol: Protocol, lacking: Sequence[str] = ()
) -> str:
    """Render the comparison as text.

    Args:
        a, b: Runs of both sides.
        metrics: Names of the metrics; empty for the usual ones that both sides have.
        protocol: The epoch of the results.
        lacking: A line for each run of a side that has no result.

    Raises:
        UserError: A metric is missing in a run.
    """
    known = Shown([run.result for run in (*a, *b)])
    left, right = _keyed(a, b)
    found: dict[str, Comparison] = {}
    for name in metrics or _usual(a, b, known, protocol):
        ours, theirs = _values(left, name, protocol), _values(right, name, protocol)
        if not ours or not theirs:
            measured = sorted({n for run in (*a, *b) for n in run.result.data["metrics"][protocol] or {}})
            raise UserError(f"'{name}' was not measured by every run{did_you_mean(name, measured)}")
        unit = 10.0 ** -known[name].digits / known[name].scale
        tested = {run.result.data["examples"]["test"] for run in (*a, *b)}
        grain = grain_of([*ours.values(), *theirs.values()], tested.pop() if len(tested) == 1 else None, unit)
        found[name] = compare(theirs, ours, grain, outcomes_of(right, left, name, protocol))
    if not found:
        raise UserError(f"A and B have no metric of {PROTOCOLS[protocol]} in common")
    timeless = _timeless(a, b)
    judged = {name: of for name, of in found.items() if not (timeless and name in TIMES)}
    kept = survivors(judged)
    whole = any(of.whole is not None for of in found.values())
    more = ["over seeds and examples"] if whole else []
    table = [["", "A ± sd", "B ± sd", "B - A", "95 % over seeds", *more, ""]]
    for name, of in found.items():
        verdict = f"not compared: {timeless}" if name not in judged else _verdict(of, known[name], name in kept)
        table.append(_row(of, known[name], whole, verdict))
    lines = [*_warnings(a, b, timeless if len(judged) < len(found) else "", lacking), _side("A", a), _side("B", b), ""]
    lines += [*_config(a[0], b[0]), "", *_columns(table), ""]
    return "\n".join([*lines, *_notes(a, b, found, judged, protocol)])


def _warnings(a: Sequence[Run], b: Sequence[Run], timeless: str, lacking: Sequence[str]) -> list[str]:
    """Differences other than the method that affect the comparison: budgets, times, missing results."""
    lines = []
    for label, key in BUDGETS:
        sides = [sorted({_budget(run, key) for run in runs}) for runs in (a, b)]
        if sides[0] != sides[1]:
            shown = [", ".join(f"{value:,g}" for value in side) for side in sides]
            lines.append(f"warning: unequal {label}: A {shown[0]}; B {shown[1]}")
    if timeless:
        lines.append(f"warning: times are not compared: {timeless}")
    lines += [f"warning: no result of {line}" for line in lacking]
    return [*lines, ""] if lines else []


def _budget(run: Run, key: str) -> float:
    data = run.result.data
    return float(data["examples"][key] if key in ("training", "test") else data[key])


def _timeless(a: Sequence[Run], b: Sequence[Run]) -> str:
    """Why times say nothing about the two sides; empty if they do."""
    runs = [run.result.data for run in (*a, *b)]
    if fused := sum("fused" in data and data["fused"] > 1 for data in runs):
        return f"{fused} of {len(runs)} runs trained together with others"
    return "other hardware" if {_device(run) for run in a} != {_device(run) for run in b} else ""


def _side(name: str, runs: Sequence[Run]) -> str:
    seeds = ", ".join(str(run.seed) for run in runs)
    scene = " ".join(f"{key} {runs[0].scene[key]}" for key in NAMED if key in runs[0].scene)
    return f"{name}  {scene}, n = {len(runs)} (seed{'s' if len(runs) > 1 else ''} {seeds})\n   {runs[0].result.folder}"


def _config(a: Run, b: Run) -> list[str]:
    # flat mappings with dotted paths as keys
    differ = differences(a.scene, b.scene) | differences(a.experiment, b.experiment)
    if not differ:
        return ["The configs differ only in their seeds."]
    alone = "teacher" in differ and None in differ["teacher"]  # then its settings say nothing
    rows = [[k, _shown(x), _shown(y)] for k, (x, y) in differ.items() if not (alone and k.startswith("teacher."))]
    return ["Differences in the config:", *(f"  {line}" for line in _columns([["", "A", "B"], *rows]))]


def _shown(value: object) -> str:
    return "-" if value is None else show_value(value)


def _values(runs: Mapping[int, Result], metric: str, protocol: Protocol) -> dict[int, float]:
    """The metric's value of each run; empty if a run lacks it."""
    data = {seed: run.data for seed, run in runs.items()}
    measured = {s: d[metric] if metric in d else (d["metrics"][protocol] or {}).get(metric) for s, d in data.items()}
    return {} if None in measured.values() else {seed: float(v) for seed, v in measured.items() if v is not None}


def _keyed(a: Sequence[Run], b: Sequence[Run]) -> tuple[dict[int, Result], dict[int, Result]]:
    """Results by seed; by all seeds of a run together if the run's own seed is not unique."""
    unique = all(len({run.seed for run in runs}) == len(runs) for runs in (a, b))
    whole = sorted({json.dumps(run.seeds, sort_keys=True) for run in (*a, *b)})

    def key(run: Run) -> int:
        return run.seed if unique else whole.index(json.dumps(run.seeds, sort_keys=True))

    return {key(run): run.result for run in a}, {key(run): run.result for run in b}


def _usual(a: Sequence[Run], b: Sequence[Run], known: Shown, protocol: Protocol) -> list[str]:
    """The metrics that both sides have and people look at, and what a run costs in time."""
    measured = dict.fromkeys(n for run in (*a, *b) for n in run.result.data["metrics"][protocol] or {})
    names = [n for n in known.order(measured) if known[n].better is not None and "teacher" not in n.split("/")]
    chosen = [*filter(known.compared, names), COSTS[0].name]
    sides = [dict(enumerate(run.result for run in runs)) for runs in (a, b)]
    return [n for n in chosen if all(_values(side, n, protocol) for side in sides)]


def _verdict(of: Comparison, metric: Metric, kept: bool) -> str:
    if not of.enough:
        return "too few seeds"
    if of.gain.mean == 0 and of.gain.std == 0:
        return "the same"
    if not of.significant:
        return "not distinguishable"
    verdict = f"B is {'higher' if of.gain.mean > 0 else 'lower'}"
    if metric.better is not None:
        verdict += ", better" if (of.gain.mean > 0) == (metric.sign > 0) else ", worse"
    return f"{verdict} *" if kept else f"{verdict}, but not after Holm"


def _row(of: Comparison, metric: Metric, whole: bool, verdict: str) -> list[str]:
    shown = signed(of.gain.mean, of.interval, metric)
    digits = len(shown.partition(".")[2])
    # with the digits of the difference, so that it is that of the printed means
    sides = [_side_of(side, metric.scale, digits) for side in (of.left, of.right)]
    both = [] if not whole else ["-" if of.whole is None else show_interval(of.whole, metric) or "-"]
    return [metric.directed, *sides, shown, show_interval(of.interval, metric) or "-", *both, verdict]


def _side_of(side: Summary, scale: float, digits: int) -> str:
    spread = "" if math.isnan(side.std) else f" ± {fixed(side.std, digits, scale)}"
    return f"{fixed(side.mean, digits, scale)}{spread}"


def _notes(
    a: Sequence[Run],
    b: Sequence[Run],
    found: Mapping[str, Comparison],
    judged: Mapping[str, Comparison],
    protocol: Protocol,
) -> list[str]:
    first = next(iter(found.values()))
    shared = len({run.seed for run in a} & {run.seed for run in b})
    if first.paired:
        how = f"paired over the {len(first.seeds)} seeds that both have"
        if (rest := len(a) + len(b) - 2 * len(first.seeds)) > 0:
            how += f"; means and differences are of these, {rest} other run{'s' if rest > 1 else ''} left out"
    else:
        how = f"not paired ({shared} of {len(a)} and {len(b)} seeds match); intervals are Welch's"
    notes = [f"mean ± sample standard deviation over seeds; numbers of {PROTOCOLS[protocol]}; {how}"]
    if not first.enough:
        notes.append(f"{caution(min(first.left.n, first.right.n))}")
    else:
        k, kept = len(judged), len(survivors(judged))
        rests = dict.fromkeys(of.rests for of in judged.values())
        notes.append(
            f"{k} comparison{'s' if k > 1 else ''}: {sum(of.significant for of in judged.values())} differ alone, "
            f"{kept} after Holm's correction (*); judged over {' or, without predictions, over '.join(rests)}"
        )
    notes.append(
        "over seeds: for this test set, not for others; over seeds and examples: the test set counts as a sample; each "
        "side of an interval is at least the grain of the numbers"
    )
    for name, key in (("code", _commit), ("hardware", _device)):
        left, right = ({key(run) for run in runs} for runs in (a, b))
        if left != right:
            notes.append(f"the {name} also differs: A {', '.join(sorted(left))}; B {', '.join(sorted(right))}")
    return notes


def _commit(run: Run) -> str:
    code = run.result.data["code"]
    return "no checkout" if code["commit"] is None else code["commit"][:10] + (" + changes" if code["dirty"] else "")


def _device(run: Run) -> str:
    return f"{run.result.data['device']['name']} ({run.result.data['device']['threads']} threads)"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
