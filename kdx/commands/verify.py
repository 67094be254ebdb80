"""The command `kdx verify`: trains a sample of a table's runs again."""

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdx.config.compose import ConfigError, compose
from kdx.core.errors import UserError, printable
from kdx.core.metric import fixed
from kdx.core.notice import fail, stop

if TYPE_CHECKING:
    from kdx.studies.verification import Outcome
    from kdx.tables.manifest import Manifest

HELP = """\
kdx verify TABLE [cells=3] [key=value] ...

Trains a random sample of a table's runs again, as its manifest describes them, and says of each: same bits, within
the interval, or different. The interval is where one run of the row lies with a probability of 95 %. Exits with 1 if
a run is different or could not run.

  TABLE                a file of the table, such as outputs/tables/demo.md, or its name without the suffix
  cells=3              number of runs; cells=null takes all
  seed=0               seed of the sample
  jobs=2               concurrent processes
  files=FOLDER         where files that runs start from are, such as a teacher's weights; found by their checksum
  overrides=["dataset.root=/data"]         overrides of every run that change no result

The runs train in outputs/verify and are deleted unless one differs. The same command continues an interrupted one.
"""


def main(arguments: Sequence[str]) -> None:
    """Verify a table and exit: 0 it holds, 1 a run is different or did not run, 2 the command is wrong."""
    if any(a in ("-h", "--help") for a in arguments) or not arguments:
        print(HELP, end="")
        return
    from kdx.config.validate import check

    try:
        composed = compose([_table(argument) for argument in arguments], "verify")
        asked = {key: value for key, value in composed.config.items() if key != "paths"}
        if problems := check({"_target_": "kdx.studies.verification.Request", **asked}, ""):
            raise ConfigError(problems)
    except (ConfigError, UserError) as error:
        fail(2, error)
    from kdx.runs import signals
    from kdx.studies.verification import Request, edited, manifest_path, repeat, sample
    from kdx.tables.manifest import SUFFIX, read_manifest

    request = Request(**asked)
    try:
        path = manifest_path(request.table)
        manifest = read_manifest(path)
    except UserError as error:
        fail(2, error)
    changed = [f"{name} is not the file that the study wrote" for name in edited(manifest, path)]
    chosen = sample(manifest, request.cells, request.seed)
    name = path.name.removesuffix(f".{SUFFIX}")
    folder = Path(composed.config["paths"]["outputs"]) / "verify" / f"{path.parent.name}-{name}"
    places = {"runs": str(folder / "runs"), "teachers": str(folder / "teachers"), "memos": str(folder / "memos")}
    signals.install()
    try:
        outcomes = repeat(manifest, chosen, {**composed.config["paths"], "outputs": str(folder), **places}, request)
    except (UserError, ValueError, OSError) as error:
        fail(1, error)
    print(printable("\n".join(report(manifest, outcomes, request.seed, changed))))
    if all(outcome.verdict in ("same bits", "within the interval") for outcome in outcomes) and not changed:
        shutil.rmtree(folder, ignore_errors=True)
        return
    stop(1, [f"the runs stay in {folder}"])


def _table(argument: str) -> str:
    """A table that is named without its key."""
    if argument.startswith("-"):
        raise UserError(f"unknown option '{argument}'; see kdx verify --help")
    quoted = argument.replace("\\", "\\\\").replace("'", "\\'")
    return argument if "=" in argument else f"table='{quoted}'"


def report(manifest: "Manifest", outcomes: Sequence["Outcome"], seed: int, changed: Sequence[str]) -> list[str]:
    """The comparison in lines for a terminal."""
    from kdx.tables.footnotes import align

    # as many digits as the grain has
    digits = max(2, math.ceil(-math.log10(manifest.grain * manifest.scale))) if manifest.grain else 4
    rows = [["run", f"{manifest.metric}, recorded", "again", "95 % of one run", "verdict"]]
    rows += [
        [
            of.run.label,
            _shown(of.value, digits, manifest.scale),
            _shown(of.again, digits, manifest.scale),
            "-" if math.isnan(of.interval[0]) else _ends(of.interval, digits, manifest.scale),
            of.verdict,
        ]
        for of in outcomes
    ]
    head = f"{manifest.study}: {len(outcomes)} of {len(manifest.runs)} runs again, drawn with seed {seed}"
    lines = [head, *align(rows), *(f"{of.run.label}: {of.why}" for of in outcomes if of.why)]
    counts = Counter(of.verdict for of in outcomes)
    lines.append(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    again = [of for of in outcomes if of.origin is not None]
    recorded = [manifest.origins[of.run.on] for of in again]
    return [*lines, *differing(recorded, [of.origin for of in again if of.origin is not None]), *changed]


def differing(recorded: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each fact of code and machine that differs from the recorded one."""
    lines = []
    for key in ("device", "threads", "torch", "kdx", "commit"):
        then, here = (", ".join(sorted({str(origin[key])[:40] for origin in side})) for side in (recorded, now))
        if then != here:
            lines.append(f"{key}: recorded {then}; here {here}")
    if any(origin["dirty"] for origin in recorded):
        lines.append("the recorded code had local changes that no commit holds")
    return lines


def _shown(value: float | None, digits: int, scale: float) -> str:
    return "-" if value is None else fixed(value, digits, scale)


def _ends(interval: tuple[float, float], digits: int, scale: float) -> str:
    return f"[{', '.join(fixed(end, digits, scale) for end in interval)}]"
