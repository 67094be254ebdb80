"""`kdx compare`: differences between two experiments, in config and results.

The command's checks, comparison and text share one small vocabulary of groups, so they stay in one file.
"""

import glob
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from kdx.config.identity import differences
from kdx.core.errors import UserError, did_you_mean, printable, reason
from kdx.core.metric import Metric
from kdx.report.collect import Run, collect, read
from kdx.report.groups import show_value
from kdx.report.knobs import NAMED
from kdx.runs.folder import CONFIG, DONE
from kdx.runs.results import Protocol
from kdx.tables.metrics import COSTS, Shown
from kdx.tables.statistics import Comparison, Summary, caution, compare
from kdx.tables.table import PROTOCOLS

HELP = """\
kdx compare A B [metric=NAME,...] [protocol=last|best_on_test|val_selected] [seeds=all]

Shows the differences between the configs of A and B, and tests whether their results differ, paired over
the seeds that both have. A and B are each a run's directory, a folder of runs, a quoted pattern or a path
prefix; all runs of a side are repetitions of one experiment.

  metric     full names of metrics; default: the usual ones
  protocol   the epoch of the results; default: last
  seeds      all includes the repetitions in the same folder as a run's directory

  kdx compare outputs/runs/A outputs/runs/B seeds=all
  kdx compare 'outputs/runs/digits-kd-*' outputs/runs/digits-dkd-
"""
KEYS = ("metric", "protocol", "seeds")


def main(arguments: Sequence[str]) -> None:
    """Print a comparison and exit: 0 done, 1 a run could not be read, 2 wrong usage."""
    if any(a in ("-h", "--help") for a in arguments):
        print(HELP, end="")
        return
    sides, given = [], {"metric": "", "protocol": "last", "seeds": "given"}
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if argument.startswith("-"):
            _refuse(f"unknown option '{argument}'; write settings without dashes: protocol=last")
        if not sign or Path(argument).exists():
            sides.append(argument)
        elif key not in KEYS:
            _refuse(f"unknown setting '{key}'{did_you_mean(key, KEYS)}")
        else:
            given[key] = value
    if len(sides) != 2:
        hint = "; put patterns in quotes" if len(sides) > 2 else ""
        _refuse(f"needs two sides, kdx compare A B, got {len(sides)}{hint}")
    if given["seeds"] not in ("all", "given"):
        _refuse(f"seeds={given['seeds']} must be all or given")
    if given["protocol"] not in get_args(Protocol):
        _refuse(f"protocol={given['protocol']} must be one of {', '.join(get_args(Protocol))}")
    protocol: Protocol = cast(Protocol, given["protocol"])
    try:
        problems: list[str] = []
        a, b = (gather(side, given["seeds"] == "all", problems) for side in sides)
        for line in dict.fromkeys(problems):
            print(printable(f"kdx: {line}; the run is left out"), file=sys.stderr)
        print(printable(report(a, b, [m for m in given["metric"].split(",") if m], protocol)))
    except (UserError, OSError) as error:
        for line in [reason(error)] if isinstance(error, OSError) else str(error).splitlines():
            print(printable(f"kdx: {line}"), file=sys.stderr)
        sys.exit(1)


def gather(side: str, beside: bool, problems: list[str]) -> list[Run]:
    """Read the runs of a side, sorted by seed.

    Args:
        side: A run's directory, a folder of runs, a pattern, or a path prefix.
        beside: Whether to include repetitions next to a run's directory.
        problems: Gets a line for each damaged run, which is left out.

    Raises:
        UserError: There is no finished run, or the runs are not repetitions of one experiment.
    """
    path = Path(side)
    if (path / CONFIG).exists() or (path / DONE).exists():
        run = read(path)
        near = [run]
        if beside:
            found = collect([path.parent if path.name else path.absolute().parent])
            near = found.runs
            problems += found.problems
        return _by_seed([other for other in near if other.group == run.group])
    places = [path] if path.is_dir() else [Path(p) for p in sorted(glob.glob(side) or glob.glob(f"{side}*"))]
    places = [place for place in places if place.is_dir()]
    if not places:
        raise UserError(f"{side}: no such run, folder or path prefix")
    found = collect(places)
    runs = found.runs
    problems += found.problems
    groups: dict[str, Run] = {run.group: run for run in runs}
    if len(groups) > 1:
        first, second = list(groups.values())[:2]
        differ = ", ".join(list(differences(first.experiment, second.experiment))[:3])
        raise UserError(
            f"{side} contains {len(groups)} experiments, not repetitions of one (they differ in {differ}, ...); "
            "name a run of one experiment and add seeds=all"
        )
    return _by_seed(runs)


def report(a: Sequence[Run], b: Sequence[Run], metrics: Sequence[str], protocol: Protocol) -> str:
    """Render the comparison as text.

    Args:
        a, b: Runs of both sides.
        metrics: Names of the metrics; empty for the usual ones that both sides have.
        protocol: The epoch of the results.

    Raises:
        UserError: A metric is missing in a run.
    """
    lines = [_side("A", a), _side("B", b), "", *_config(a[0], b[0]), ""]
    known = Shown([run.result for run in (*a, *b)])
    names = metrics or _usual(a, b, known, protocol)
    table = [["", "A", "B", "B - A", "95 % interval", "bootstrap", ""]]
    comparison = None
    for name in names:
        ours, theirs = _values(a, name, protocol), _values(b, name, protocol)
        if not ours or not theirs:
            known = sorted({n for run in (*a, *b) for n in run.result.data["metrics"][protocol] or {}})
            raise UserError(f"'{name}' was not measured by every run{did_you_mean(name, known)}")
        left, right = _keyed(a, b, ours, theirs)
        comparison = compare(right, left)
        table.append(_row(Summary.of(ours), Summary.of(theirs), comparison, known[name]))
    if comparison is None:
        raise UserError(f"A and B have no metric of {PROTOCOLS[protocol]} in common")
    lines += [*_columns(table), "", *_notes(a, b, comparison, protocol)]
    return "\n".join(lines)


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


def _values(runs: Sequence[Run], metric: str, protocol: Protocol) -> list[float]:
    """The metric's value of each run; empty if a run lacks it."""
    data = [run.result.data for run in runs]
    measured = [d[metric] if metric in d else (d["metrics"][protocol] or {}).get(metric) for d in data]
    return [float(v) for v in measured if v is not None] if None not in measured else []


def _keyed(
    a: Sequence[Run], b: Sequence[Run], left: Sequence[float], right: Sequence[float]
) -> tuple[Mapping[int, float], Mapping[int, float]]:
    """Values by seed; by all seeds of a run together if the run's own seed is not unique."""
    unique = all(len({run.seed for run in runs}) == len(runs) for runs in (a, b))
    whole = sorted({json.dumps(run.seeds, sort_keys=True) for run in (*a, *b)})

    def key(run: Run) -> int:
        return run.seed if unique else whole.index(json.dumps(run.seeds, sort_keys=True))

    return (
        {key(run): value for run, value in zip(a, left, strict=True)},
        {key(run): value for run, value in zip(b, right, strict=True)},
    )


def _usual(a: Sequence[Run], b: Sequence[Run], known: Shown, protocol: Protocol) -> list[str]:
    """The metrics that both sides have and people look at, and what a run costs in time."""
    measured = dict.fromkeys(n for run in (*a, *b) for n in run.result.data["metrics"][protocol] or {})
    names = [n for n in known.order(measured) if known[n].better is not None and "teacher" not in n.split("/")]
    chosen = [*filter(known.compared, names), COSTS[0].name]
    return [n for n in chosen if _values(a, n, protocol) and _values(b, n, protocol)]


def _row(left: Summary, right: Summary, comparison: Comparison, metric: Metric) -> list[str]:
    scale, digits = metric.scale, metric.digits
    if not comparison.enough:
        verdict = "too few seeds"
    elif comparison.gain.mean == 0 and comparison.gain.std == 0:
        verdict = "the same"
    elif comparison.significant:
        verdict = f"B is {'higher' if comparison.gain.mean > 0 else 'lower'}"
        if metric.better is not None:
            verdict += ", better" if (comparison.gain.mean > 0) == (metric.sign > 0) else ", worse"
    else:
        verdict = "no difference shown"

    def interval(of: tuple[float, float] | None) -> str:
        if of is None or math.isnan(of[0]):
            return "-"
        return f"{of[0] * scale:+.{digits}f} to {of[1] * scale:+.{digits}f}"

    gain = f"{comparison.gain.mean * scale:+.{digits}f}"
    shown = [left.show(scale, digits), right.show(scale, digits), gain]
    return [metric.heading, *shown, interval(comparison.interval), interval(comparison.bootstrap), verdict]


def _notes(a: Sequence[Run], b: Sequence[Run], comparison: Comparison, protocol: Protocol) -> list[str]:
    paired = comparison.bootstrap is not None
    how = (
        f"paired over the {len(comparison.seeds)} seeds that both have; the interval is Student's t, the bootstrap "
        "resamples pairs with a fixed seed"
        if paired
        else "not paired, since fewer than two seeds match; an interval is Welch's"
    )
    notes = [f"mean ± sample standard deviation; numbers of {PROTOCOLS[protocol]}; {how}"]
    if not comparison.enough:
        n = len(comparison.seeds) if paired else min(len(a), len(b))
        notes.append(f"{caution(n)}")
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


def _by_seed(runs: Sequence[Run]) -> list[Run]:
    # runs with the same seeds are not repetitions: only the last one counts, as in the report
    last = {str(run.seeds): run for run in sorted(runs, key=lambda r: r.result.data["finished"])}
    return sorted(last.values(), key=lambda run: (run.seed, str(run.seeds)))


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _refuse(problem: str) -> None:
    print(f"kdx: {problem}", file=sys.stderr)
    sys.exit(2)
