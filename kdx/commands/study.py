"""The command `kdx study`."""

import sys
from collections.abc import Sequence

from kdx.config.compose import ConfigError, compose
from kdx.config.layout import options, take_config_dirs
from kdx.core.distributed import fails_first, world_size
from kdx.core.errors import UserError
from kdx.core.notice import fail, say, stop

HELP = """\
kdx study study=NAME [key=value] ...

Trains the unfinished runs of a study and prints its table. The same command continues an interrupted study;
fresh=true trains everything again. A failed run stops no other.

  jobs=2                 concurrent processes, each with its share of the threads
  fused=true             runs with the same data_seed, data and teacher train together: each batch is loaded once and
                         the teacher computes it once; the results are the same, only the seconds of a run differ
  retry=failed           trains failed runs again; without it they are only reported
  only=render            writes the table from finished runs and trains nothing
  scale=smoke            a preset of a table: smoke (a short test), cpu (a part of the table), paper (as published)
  overrides=["dataset.root=/data","teacher.checkpoint=net.pt"]     overrides of every run
  seeds=auto seeds.max=10 seeds.width=0.2    seeds until each difference to the baseline is decided
  rows=[KD,DKD] columns=[resnet56-*]         the part of a table to run; of study=papers/all, rows=[kdvr] is a paper

studies: {studies}
"""


def main(arguments: Sequence[str]) -> None:
    """Run a study and exit: 0 done, 1 a run failed, 2 the command is wrong."""
    try:
        arguments = take_config_dirs(arguments)
    except UserError as error:
        fail(2, error)
    if any(a in ("-h", "--help") for a in arguments):
        print(HELP.format(studies=", ".join(options("study"))), end="")
        return
    for option in [a for a in arguments if a.startswith("-")]:
        stop(2, [f"unknown option '{option}'; see kdx study --help"])
    if world_size() > 1:
        refusal = "torchrun trains one run; a study trains several at once with jobs=N or fused=true"
        stop(2, [refusal] if fails_first() else [])
    from kdx.config.validate import check  # importing pydantic takes a tenth of a second

    try:
        composed = compose(arguments, "study")
        asked = {key: value for key, value in composed.config.items() if key not in ("study", "paths")}
        problems = check(composed.config["study"], "study")
        problems += check({"_target_": "kdx.studies.options.Options", **asked}, "")
        if problems:
            raise ConfigError(problems)
    except ConfigError as error:
        fail(2, error)
    from kdx.runs import signals
    from kdx.runs.build import make
    from kdx.studies.options import Options
    from kdx.studies.study import check_study

    try:
        chosen = Options(**asked)
        study = check_study(make(composed.config["study"]), chosen)
    except (UserError, ValueError) as error:
        fail(2, error)
    if not any(argument.partition("=")[0] == "study" for argument in arguments):
        say("no study is named, so study=demo runs; kdx study --help lists the studies")
    signals.install()
    try:
        failures = study.execute(composed.config["paths"], chosen)
    except (UserError, ValueError, OSError) as error:
        fail(1, error)
    for line in failures:
        say(f"failed: {line}")
    if failures:
        sys.exit(1)
