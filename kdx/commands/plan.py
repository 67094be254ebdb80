"""The command `kdx plan`: how many seeds and hours a claim needs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdx.config.compose import ConfigError, compose
from kdx.config.layout import take_config_dirs
from kdx.core.errors import UserError, printable
from kdx.core.notice import fail

if TYPE_CHECKING:
    from kdx.studies.plan import Plan, Planned

HELP = """\
kdx plan study=NAME gain=0.3 [key=value] ...

Says how many seeds each row of a study needs, so that a true difference of that size to the baseline is claimed with a
probability of 80 %, and how many hours the missing runs take. The spread is that of the finished runs; nothing trains.

  gain=0.3               the difference, in the unit that the table shows, such as points of accuracy
  rows=[KD,DKD]          the rows; the other keys are those of kdx study
"""


def main(arguments: Sequence[str]) -> None:
    """Print the plan and exit: 0 done, 1 no run is finished, 2 the command is wrong."""
    if any(a in ("-h", "--help") for a in arguments) or not arguments:
        print(HELP, end="")
        return
    from kdx.config.validate import check
    from kdx.runs.build import make
    from kdx.studies.grid import Grid
    from kdx.studies.options import Options
    from kdx.studies.plan import plan
    from kdx.studies.study import check_study

    try:
        arguments = take_config_dirs(arguments)
        gain = _gain([a for a in arguments if a.startswith("gain=")])
        composed = compose([a for a in arguments if not a.startswith("gain=")], "study")
        asked = {key: value for key, value in composed.config.items() if key not in ("study", "paths")}
        problems = check(composed.config["study"], "study")
        problems += check({"_target_": "kdx.studies.options.Options", **asked}, "")
        if problems:
            raise ConfigError(problems)
        options = Options(**asked)
        study = check_study(make(composed.config["study"]), options)
        if not isinstance(study, Grid):
            raise UserError(f"kdx plan reads studies of rows and seeds (Grid), and this is a {type(study).__name__}")
        seen = study.seen(composed.config["paths"], options)
    except (UserError, ValueError) as error:
        fail(2, error)
    assert study.baseline is not None  # `seen` refuses others
    try:
        found = plan(seen, study.baseline, study.columns[0], study.protocol, gain)
    except UserError as error:
        fail(1, error)
    print(printable("\n".join(show(found, gain, study.baseline))))


def _gain(given: Sequence[str]) -> float:
    if len(given) != 1:
        raise UserError("kdx plan needs the size of the claim: gain=0.3")
    try:
        value = float(given[0].removeprefix("gain="))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value == 0:
        raise UserError(f"{given[0]}: must be a number other than 0, such as gain=0.3")
    return value


def show(found: "Plan", gain: float, baseline: str) -> list[str]:
    """The plan in lines for a terminal."""
    from kdx.tables.footnotes import align

    unit = found.metric.heading
    head = ["row", "seeds so far", "sd of a difference [95 %]", "fixed", "auto", "auto, after Holm", "hours"]
    lines = align([head, *(_row(row, found.metric.scale) for row in found.rows)])
    hours = found.hours()
    total = "unknown: more seeds than are searched" if math.isinf(hours) else f"{hours:.2f} h"
    return [
        f"seeds for a claim of {gain:+g} {unit} against {baseline}, made with a probability of 80 %",
        *lines,
        f"all rows and the baseline, the missing runs one after the other (auto, after Holm): {total}",
        "fixed: Student's interval at a number of seeds chosen in advance; auto: seeds=auto, whose intervals may "
        "be read after each seed, and with which a row often ends earlier",
    ]


def _row(row: "Planned", scale: float) -> list[str]:
    if row.alone is None or row.holm is None:
        return [row.row, str(row.pairs), "two seeds are needed", "-", "-", "-", "-"]
    low, high = (scale * end for end in row.spread)
    counts = [row.alone.fixed, row.alone.sequence, row.holm.sequence]
    last = row.holm.sequence
    hours = "-" if last is None else f"{max(0, last - row.pairs) * row.seconds / 3600:.2f}"
    shown = [">1000" if n is None else str(n) for n in counts]
    return [row.row, str(row.pairs), f"{scale * row.std:.3g} [{low:.3g}, {high:.3g}]", *shown, hours]
