"""Checks a `kdx train` command before its first run starts, and prints a line for each error."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kdx.config.compose import Composed, ConfigError, compose, points
from kdx.core.distributed import fails_first
from kdx.core.errors import LONGEST, shown
from kdx.core.notice import stop
from kdx.sweeps.sweeps import missing_plugins


def check(arguments: Sequence[str], sweeps: bool) -> Composed | None:
    """Print all errors of a command and exit with 2 if there are any.

    A single run checks its own config; for a sweep, this function checks every value once.

    Returns:
        The config of a single run that Hydra need not compose again; None if Hydra has to start the run.
    """
    problems, overrides = _split_options(arguments)
    problems += _without_effect(arguments)
    wrong: list[str] = []
    found: list[Composed] = []
    searched = "hydra/sweeper=optuna" in arguments
    try:
        listed = points(overrides, searched) if sweeps else [overrides]
    except ConfigError as error:
        wrong, listed = error.problems, []
    for point in listed:
        try:
            composed = compose(point)
            found.append(composed)
            wrong += _idle(point, composed)
            wrong += _unmeasured(arguments, composed) if searched else []
            if sweeps or problems:
                wrong += _problems(composed)
        except ConfigError as error:
            wrong += error.problems
            if error.rest is not None:
                wrong += _problems_of(error.rest)
    missing = missing_plugins(arguments)
    launch: list[str] = []
    if not missing and (launch := [a for a in arguments if _is_hydra_s(a)]):
        try:
            compose(launch)
        except ConfigError as error:
            wrong += error.problems
    problems += [*wrong, *missing]
    if sweeps and not problems:
        problems = _unwritable(found[0])
    if problems:
        exit_with(problems)
    return None if sweeps or launch or found[0].needs_hydra else found[0]


def _unwritable(composed: Composed) -> list[str]:
    """An error if the folder of a sweep's outputs cannot be made, where Hydra would end in a traceback."""
    outputs = composed.config["paths"]["outputs"]
    try:
        Path(outputs).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return [f"paths.outputs={shown(outputs)}: {error.strerror}"]
    return [] if os.access(outputs, os.W_OK) else [f"paths.outputs={shown(outputs)}: it cannot be written"]


def _unmeasured(arguments: Sequence[str], composed: Composed) -> list[str]:
    """An error if a search maximises a metric of a validation split that no run cuts."""
    given = [a.partition("=")[2] for a in arguments if a.lstrip("+").startswith("hydra.sweeper.metric=")]
    metric = given[-1] if given and given[-1] not in ("null", "") else "val/"
    dataset = composed.config["dataset"]
    if "val" not in metric.split("/") or dataset.get("val_fraction") != 0 or dataset.get("val") is not None:
        return []
    return [
        "a search measures on a validation split, and there is none: dataset.val_fraction=0.2 cuts a validation split"
    ]


def _idle(overrides: Sequence[str], composed: Composed) -> list[str]:
    """An error if the command sets a teacher's recipe that has no effect; one set by a config file is no error."""
    teacher = composed.config["teacher"]
    typed = any(override.partition("=")[0] == "teacher.recipe" for override in overrides)
    if not typed or not isinstance(teacher, dict) or teacher["checkpoint"] == "auto":
        return []
    from kdx.runs.ensemble_config import idle_recipe  # imports torch

    return [f"teacher.{idle_recipe(teacher['checkpoint'])}"]


def exit_with(problems: Sequence[str]) -> NoReturn:
    stop(2, (shown(problem, LONGEST) for problem in dict.fromkeys(problems if fails_first() else ())))


def _problems_of(overrides: Sequence[str]) -> list[str]:
    try:
        return _problems(compose(overrides))
    except ConfigError as error:
        return error.problems


def _problems(composed: Composed) -> list[str]:
    from kdx.runs.prepare import examine  # imports torch

    try:
        examine(composed)
    except ConfigError as error:
        return error.problems
    return []


def _is_hydra_s(argument: str) -> bool:
    return argument.lstrip("+~").startswith(("hydra.", "hydra/", "hydra="))


def _without_effect(arguments: Sequence[str]) -> list[str]:
    """An error for each setting of Hydra that chooses folders of runs, which a run's identity names."""
    return [
        f"{key} has no effect: a run's folder is named by its identity; set paths.outputs={shown(value)}"
        for key, _, value in (argument.lstrip("+").partition("=") for argument in arguments)
        if key in ("hydra.run.dir", "hydra.sweep.subdir")
    ]


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
        hint = f"; a setting has no dashes: {shown(key)}={shown(value)}" if value else "; see kdx train --help"
        problems.append(f"unknown option '{shown(argument)}'{hint}")
    return problems, overrides
