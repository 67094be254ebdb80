"""The network of a finished run, which may come from someone else."""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kdx.config.compose import Config
from kdx.config.past import parse_config
from kdx.config.schema import RunConfig, run_config
from kdx.config.trusted import refusals
from kdx.config.validate import check
from kdx.core.errors import DamagedError, UserError, reason, shown
from kdx.core.task import Task
from kdx.data.dataset import Dataset
from kdx.models.weights import CheckpointError, load_weights
from kdx.runs.build import LIGHT, Light, build_light, start_student, untrained
from kdx.runs.checksums import read_checked
from kdx.runs.folder import CONFIG, SELECTED_STUDENT, STUDENT
from kdx.runs.results import Protocol, finished

FILES = {"last": STUDENT, "val_selected": SELECTED_STUDENT}


@dataclass(frozen=True)
class Stored:
    """A finished run and its student.

    Attributes:
        folder: The run's directory.
        config: Its config, without anything that downloads.
        result: Content of its `result.json`.
        light: Its light parts.
        task: The student's task.
        protocol: The student's epoch.
        weights: The file that it was loaded from.
        net: The student in evaluation mode, on the CPU.
    """

    folder: Path
    config: RunConfig
    result: dict[str, Any]
    light: Light
    task: Task
    protocol: Protocol
    weights: Path
    net: nn.Module

    @property
    def dataset(self) -> Dataset:
        """The run's data set; nothing of it is loaded yet."""
        return self.light.dataset


def stored(folder: Path, protocol: Protocol) -> Stored:
    """Load the student of a finished run.

    Args:
        folder: The run's directory.
        protocol: "last" for the student at the last step, "val_selected" for the one that was best on validation.

    Raises:
        UserError: The run is not finished, a file is missing, or the config names what must not be built.
        DamagedError: A file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{shown(str(folder), 120)}: no such directory; name the directory of a finished run")
    result = finished(folder)
    if result is None:
        what = "it did not finish" if (folder / CONFIG).exists() else "it holds no run"
        raise UserError(f"{shown(str(folder), 120)} is no finished run: {what} (kdx status lists runs)")
    config = as_data(folder, read_checked_config(folder))
    # the machine that trained may have had a GPU
    config = replace(config, trainer={**config.trainer, "device": "auto"})
    light = build_light(config)
    weights = folder / FILES[protocol]
    if not weights.is_file():
        why = "; dataset.val_fraction cuts off a validation split to select on" if protocol == "val_selected" else ""
        raise UserError(f"{folder} has no {weights.name}{why}")
    read_checked(folder, weights.name)
    net = start_student(config, None)
    try:
        load_weights(net, weights)
    except CheckpointError as error:
        if "of another network" not in str(error):
            raise
        raise UserError(
            f"{weights}: method={config.choices['method']} exports another network than student.net, which cannot be "
            "built from the config alone"
        ) from error
    task = light.transfer.task(light.dataset.task)
    return Stored(folder, config, result.data, light, task, protocol, weights, net.eval())


def read_checked_config(folder: Path) -> Config:
    """The config of a finished run. Raises DamagedError if it changed after the run had finished."""
    try:
        return parse_config(read_checked(folder, CONFIG).decode())
    except DamagedError:
        raise
    except Exception as error:  # whatever a YAML parser says of other bytes
        raise DamagedError(f"{folder / CONFIG} is damaged: {reason(error)}") from None


def as_data(folder: Path, given: Config) -> RunConfig:
    """The config of a run from an unknown source, without anything that downloads or writes outside its folder.

    Args:
        folder: The run's directory.
        given: Its config.

    Raises:
        UserError: The config names a class that must not be built (`kdx.config.trusted`), or a part refuses its values.
    """
    path, config = folder / CONFIG, deepcopy(given)
    problems = refusals(config)
    if not problems:
        for key in LIGHT:
            problems += check(config[key], key)
        for role in ("student", "teacher"):
            if config[role] is not None and config[role]["net"]:
                problems += check(config[role]["net"], f"{role}.net")
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(f"{path}: {problems[0]}{more}")
    config["student"]["net"] = untrained(config["student"]["net"])
    for dataset in (config["dataset"], (config["transfer"].get("unlabelled") or {}).get("dataset")):
        if isinstance(dataset, dict):
            dataset |= {key: False for key in ("download",) if key in dataset}
            dataset |= {key: str(folder.parent / ".shards") for key in ("index",) if key in dataset}
    try:
        return run_config(config)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: this version cannot read it: {error}") from None
