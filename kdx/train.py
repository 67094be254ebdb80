"""The training entry: `kdx train`, or `python -m kdx.train`.

Hydra composes and sweeps; this module checks what it composed and hands it to a run.
"""

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig

from kdx.config.compose import Composed, ConfigError, compose, plain, points
from kdx.config.layout import config_dir, register_networks, take_config_dirs
from kdx.core.distributed import fails_first, join, leads, leave, size
from kdx.core.errors import StoppedError, UserError
from kdx.sweeps.launcher import FusedLauncher, ToldError, as_launched
from kdx.sweeps.search import Search
from kdx.sweeps.sweeps import expand, failures, missing_plugins, note_failure
from kdx.sweeps.trial import PRUNED, objective, trial_views

SWEEPS = (
    "torchrun trains one run in several processes; run the points of a sweep one by one, or several at a time without "
    "torchrun: hydra/launcher=fused, joblib or submitit_slurm"
)

_failed: list[int] = []


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says and exit: 0 done, 1 a run failed, 2 the command is wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Hydra instantiates plugins of this package alone; a folder of that name would have to lie beside `kdx`
    Plugins.instance().class_name_to_class |= {
        "hydra_plugins.kdx.Fused": FusedLauncher,
        "hydra_plugins.kdx.Search": Search,
    }
    try:
        arguments, ready_made = expand(take_config_dirs(arguments))
        register_networks()
    except UserError as error:
        _exit_with(str(error).splitlines())
    sweeps = ready_made or any(a in ("-m", "--multirun") for a in arguments)
    if sweeps and size() > 1:
        _exit_with([SWEEPS])
    if sweeps:  # in front, since Hydra takes no overrides after a flag that follows some
        arguments = ["--multirun", *(a for a in arguments if a not in ("-m", "--multirun"))]
    if _asks_about(arguments):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `kdx train --help | head` is no error
    else:
        _check(arguments, sweeps)
    sys.argv = ["kdx train", *arguments]
    _failed.clear()
    FusedLauncher.launched.clear()
    FusedLauncher.failed.clear()
    _hydra_main()
    failed = failures() if sweeps else _failed
    if len(failed) > 1:
        print(f"kdx: {len(failed)} runs failed", file=sys.stderr)
    if failed:
        sys.exit(1 if sweeps else failed[0])


@hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")
def _hydra_main(cfg: DictConfig) -> float | str | None:
    """One job; its return value is what a sweeper maximises or minimises."""
    hydra_config = HydraConfig.get()
    try:
        return _train(plain(cfg, dict(hydra_config.runtime.choices)), hydra_config.mode == RunMode.MULTIRUN)
    except KeyboardInterrupt:
        if leads():
            print("kdx: stopped; the same command resumes", file=sys.stderr)
        sys.exit(130)
    except StoppedError as error:
        print(f"kdx: {' '.join(hydra_config.overrides.task)}: {error}", file=sys.stderr)
        return PRUNED
    except Exception as error:
        sweeps = hydra_config.mode == RunMode.MULTIRUN
        _report(error, " ".join(hydra_config.overrides.task) if sweeps else "")
        code = 2 if isinstance(error, ConfigError) else 1
        note_failure(code) if sweeps else _failed.append(code)
        return None


def _train(composed: Composed, sweeps: bool) -> float | None:
    from kdx.commands.show import show
    from kdx.engine.record.loggers import asked_by_agent
    from kdx.pool.task import folder_of
    from kdx.runs.prepare import prepare  # torch comes with these
    from kdx.runs.run import run, run_or_wait
    from kdx.sweeps.agent import show_again

    join()
    config = as_launched(prepare(composed))
    if asked_by_agent() and leads():
        show_again(config)
    # another sweep may be at a run that this one needs, too; two commands for one run are a mistake
    try:
        result = (run_or_wait if sweeps else run)(config, trial_views)
    except Exception as error:
        error.add_note(str(folder_of(config)))
        raise
    leave()
    if leads():
        print(show(result))
    asked = objective()
    value = result.metric(asked or f"test/{result.data['task']['primary']}")
    if value is None and asked is not None:
        raise UserError(f"{asked} was not measured; dataset.val_fraction=0.2 cuts a validation split")
    return value


def _report(error: Exception, job: str) -> None:
    """A failed run in a line, or a line for each thing that is wrong; the traceback is in its directory."""
    if isinstance(error, ToldError) or not fails_first():
        return
    prefix = f"kdx: {job}: " if job else "kdx: "
    if isinstance(error, UserError | ValueError | OSError):
        text = str(error) or type(error).__name__
    else:
        text = f"{type(error).__name__}: {error}; the traceback is in error.txt in the run's directory"
    if job:  # one of many: where it lies, for those that came as far
        text += "".join(f" ({folder})" for folder in getattr(error, "__notes__", ()))
    for line in text.splitlines():
        print(prefix + line, file=sys.stderr)


def _asks_about(arguments: Sequence[str]) -> bool:
    """Whether the command asks Hydra for something instead of training."""
    asking = ("-h", "--help", "--hydra-help", "--version", "-i", "--info", "-c", "--cfg", "-sc", "--shell-completion")
    return any(a in asking or a.startswith(("--cfg=", "--info=", "--shell-completion=")) for a in arguments)


def _check(arguments: Sequence[str], sweeps: bool) -> None:
    """Exit with all that is wrong with a command before its first run starts.

    A single run whose overrides compose is left to check itself; of a sweep, every value is checked once.
    """
    problems, overrides = _split_options(arguments)
    wrong: list[str] = []
    try:
        searched = any(a.startswith("hydra/sweeper=") for a in arguments)
        listed = points(overrides, searched) if sweeps else [overrides]
    except ConfigError as error:
        wrong, listed = error.problems, []
    for point in listed:
        try:
            composed = compose(point)
            wrong += _idle(point, composed)
            if sweeps or problems:
                wrong += _problems(composed)
        except ConfigError as error:
            wrong += error.problems
            if error.rest is not None:
                wrong += _problems_of(error.rest)
    missing = missing_plugins(arguments)
    if not missing and (launch := [a for a in arguments if _is_hydra_s(a)]):
        try:
            compose(launch)
        except ConfigError as error:
            wrong += error.problems
    problems += [*wrong, *missing]
    if problems:
        _exit_with(problems)


def _idle(overrides: Sequence[str], composed: Composed) -> list[str]:
    """A line where the command itself asks for a recipe that nothing follows; a study's or an experiment's may rest."""
    teacher = composed.config["teacher"]
    typed = any(override.partition("=")[0] == "teacher.recipe" for override in overrides)
    if not typed or not isinstance(teacher, dict) or teacher["checkpoint"] == "auto":
        return []
    from kdx.runs.ensemble_config import idle_recipe  # torch comes with it

    return [f"teacher.{idle_recipe(teacher['checkpoint'])}"]


def _exit_with(problems: Sequence[str]) -> NoReturn:
    for problem in dict.fromkeys(problems if fails_first() else ()):
        print(f"kdx: {problem}", file=sys.stderr)
    sys.exit(2)


def _problems_of(overrides: Sequence[str]) -> list[str]:
    try:
        return _problems(compose(overrides))
    except ConfigError as error:
        return error.problems


def _problems(composed: Composed) -> list[str]:
    from kdx.runs.prepare import examine  # torch comes with it

    try:
        examine(composed)
    except ConfigError as error:
        return error.problems
    return []


def _is_hydra_s(argument: str) -> bool:
    return argument.lstrip("+~").startswith(("hydra.", "hydra/"))


def _split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A line for each unknown option, and the overrides that are kdx's own."""
    problems, overrides = [], []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in ("-m", "--multirun", "-r", "--run", "--resolve"):
            continue
        if not argument.startswith("-"):
            overrides += [] if _is_hydra_s(argument) else [argument]
            continue
        key, _, value = argument.lstrip("-").partition("=")
        if not value and rest and "=" not in rest[0] and not rest[0].startswith("-"):
            value = rest.pop(0)
        hint = f"; a setting has no dashes: {key}={value}" if value else "; see kdx train --help"
        problems.append(f"unknown option '{argument}'{hint}")
    return problems, overrides


if __name__ == "__main__":
    main()
