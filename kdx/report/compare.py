"""`kdx compare`: differences between two experiments, in config and results."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

import yaml

from kdx.config.identity import differences, experiment
from kdx.config.past import read_config
from kdx.core.arguments import places_and_settings
from kdx.core.errors import UserError, printable
from kdx.core.notice import fail, say, stop
from kdx.report.collect import Collected, Run, collect, read
from kdx.report.verdicts import report
from kdx.runs.folder import CONFIG, DONE
from kdx.runs.results import Protocol

HELP = """\
kdx compare A B [metric=NAME,...] [protocol=last|best_on_test|val_selected] [seeds=all]

Shows the differences between the configs of A and B, and tests whether their results differ: paired over
equal seeds, or over at least three common ones that are more than half of each side's. A and B are each a
run's directory, a folder of runs, a quoted pattern or a path prefix; all runs of a side are repetitions of
one experiment.

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
    try:
        sides, own = places_and_settings(arguments, KEYS, "write settings without dashes: protocol=last")
    except UserError as error:
        fail(2, error)
    given = {"metric": "", "protocol": "last", "seeds": "given"} | own
    if len(sides) != 2:
        hint = "; put patterns in quotes" if len(sides) > 2 else ""
        stop(2, [f"needs two sides, kdx compare A B, got {len(sides)}{hint}"])
    if given["seeds"] not in ("all", "given"):
        stop(2, [f"seeds={given['seeds']} must be all or given"])
    if given["protocol"] not in get_args(Protocol):
        stop(2, [f"protocol={given['protocol']} must be one of {', '.join(get_args(Protocol))}"])
    for side in sides:
        if not Path(side).exists() and not glob.glob(f"{side}*"):
            stop(2, [f"{side}: no such run, folder or path prefix"])
    protocol: Protocol = cast(Protocol, given["protocol"])
    try:
        problems: list[str] = []
        (a, lacks_a), (b, lacks_b) = (look(side, given["seeds"] == "all", problems) for side in sides)
        for line in dict.fromkeys(problems):
            say(f"{line}; the run is left out")
        lacking = [f"{name}: {line}" for name, lines in (("A", lacks_a), ("B", lacks_b)) for line in lines]
        print(printable(report(a, b, [m for m in given["metric"].split(",") if m], protocol, lacking)))
    except (UserError, OSError) as error:
        fail(1, error)


def gather(side: str, beside: bool, problems: list[str] | None = None) -> list[Run]:
    """Read the runs of a side, sorted by seed; see `look`."""
    return look(side, beside, [] if problems is None else problems)[0]


def look(side: str, beside: bool, problems: list[str]) -> tuple[list[Run], list[str]]:
    """Read the runs of a side, sorted by seed, and a line for each run of it without a result.

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
        if not beside:
            return [run], []
        near = collect([path.parent if path.name else path.absolute().parent])
        problems += near.problems
        return _by_seed([other for other in near.runs if other.group == run.group]), _lacking(near, run)
    places = [path] if path.is_dir() else [Path(p) for p in sorted(glob.glob(side) or glob.glob(f"{side}*"))]
    places = [place for place in places if place.is_dir()]
    if not places:
        raise UserError(f"{side}: no such run, folder or path prefix")
    found = collect(places)
    problems += found.problems
    groups: dict[str, Run] = {run.group: run for run in found.runs}
    if len(groups) > 1:
        first, second = list(groups.values())[:2]
        differ = ", ".join(list(differences(first.experiment, second.experiment))[:3])
        raise UserError(
            f"{side} contains {len(groups)} experiments, not repetitions of one (they differ in {differ}, ...); "
            "name a run of one experiment and add seeds=all"
        )
    return _by_seed(found.runs), _lacking(found, None)


def _lacking(found: Collected, like: Run | None) -> list[str]:
    """A line for each run without a result, of the experiment of a run if one is given."""
    lines = []
    for folder in found.unfinished:
        try:
            alike = like is None or experiment(read_config(folder / CONFIG)) == like.experiment
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            alike = True  # the config is damaged, so the run is named in any case
        if alike:
            lines.append(f"{folder.name}: {'failed' if folder in found.failed else 'not finished'}")
    return lines


def _by_seed(runs: Sequence[Run]) -> list[Run]:
    # runs with the same seeds are not repetitions: only the last one counts, as in the report
    last = {str(run.seeds): run for run in sorted(runs, key=lambda r: r.result.data["finished"])}
    return sorted(last.values(), key=lambda run: (run.seed, str(run.seeds)))
