"""Collection of finished runs and their configs below some directories."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from kdx.config.compose import Config
from kdx.config.identity import canonical, counts, experiment, leaves, seeds
from kdx.config.past import read_config
from kdx.core.errors import UserError
from kdx.runs.folder import CONFIG, ERROR, is_done
from kdx.runs.results import Result, finished

NEEDED = ("metrics", "teacher", "seconds", "finished", "code", "versions", "device")  # keys that a result must have


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        result: Its result.
        config: Its config.
    """

    result: Result
    config: Config

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """The config's values by dotted path; null counts as missing."""
        return {path: canonical(value) for path, value in leaves(self.config).items() if value is not None}

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """The values that repetitions share, by dotted path: see `kdx.config.identity.experiment`."""
        return experiment(self.config)

    @cached_property
    def seeds(self) -> dict[str, Any]:
        """The values that tell repetitions apart, by dotted path."""
        return seeds(self.config)

    @cached_property
    def group(self) -> str:
        """The same text for repetitions of one experiment."""
        return json.dumps(self.experiment, sort_keys=True)

    @cached_property
    def scene(self) -> dict[str, str]:
        """The composition: data set, method, networks and options of the other config groups."""
        config, choices = self.config, self.config["choices"]
        named = {
            "dataset": str(config["dataset"]["name"]),
            "method": str(choices["method"]),
            "student": _network(config, "student"),
        }
        if config["teacher"] is not None:
            named["teacher"] = _network(config, "teacher")
        rest = {
            group: str(option)
            for group, option in choices.items()
            if option is not None and "@" not in group and group in config and counts(group)
        }
        return {**named, **{group: option for group, option in rest.items() if group not in (*named, "teacher")}}

    @property
    def seed(self) -> int:
        return int(self.result.data["seed"])


@dataclass(frozen=True)
class Found:
    """Contents of some directories.

    Attributes:
        runs: Finished runs, sorted by name.
        unfinished: Directories of unfinished runs.
        failed: Unfinished runs that stopped with an error.
        problems: One line for each finished run that cannot be read.
    """

    runs: list[Run]
    unfinished: list[Path]
    failed: list[Path]
    problems: list[str]


def collect(places: Sequence[Path]) -> Found:
    """Read all finished runs below some directories.

    Raises:
        UserError: A place is not a directory, or there is no finished run.
    """
    found = Found([], [], [], [])
    for folder in sorted(set(_folders(places)), key=lambda f: f.name):
        if not is_done(folder):
            found.unfinished.append(folder)
            if (folder / ERROR).exists():
                found.failed.append(folder)
            continue
        try:
            found.runs.append(read(folder))
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            found.problems.append(f"{folder}: {type(error).__name__}: {error}")
    if not found.runs:
        where = ", ".join(map(str, places))
        rest = f"; {len(found.unfinished)} are not finished" if found.unfinished else ""
        raise UserError(f"no finished run below {where}{rest}" + "".join(f"\n{line}" for line in found.problems))
    return found


def read(folder: Path) -> Run:
    """Read a finished run's directory. Raises UserError if the run is not finished."""
    result = finished(folder)
    if result is None:
        raise UserError(f"{folder} is not a finished run")
    run = Run(result, read_config(folder / CONFIG))
    # accessed here, so that an error names the directory that lacks something
    assert run.scene
    _ = run.group, run.seed, [result.data[key] for key in NEEDED]
    return run


def _network(config: Config, role: str) -> str:
    # as `prepare.network_name` has it, whose module takes torch along: seconds before the first run is read
    net = config[role]["net"]
    return str(net["name"] if "name" in net else config["choices"][role])


def _folders(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place}: no such directory")
        for folder, below, files in os.walk(place):
            if CONFIG in files:
                below.clear()  # a run's own subfolders contain no runs
                yield Path(folder)
