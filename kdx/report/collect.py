"""Collection of finished runs and their configs below some directories."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from kdx.config.compose import Config
from kdx.config.identity import NOT_IDENTITY, differences
from kdx.core.errors import UserError
from kdx.runs.folder import CONFIG, ERROR, is_done
from kdx.runs.results import Result, finished

NEEDED = ("metrics", "teacher", "seconds", "finished", "code", "versions", "device")  # keys that a result must have
# PyYAML's C loader if available: ten times as fast
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
        """The config's values by dotted path, without nulls."""
        return {path: value for path, (_, value) in differences({}, self.config).items() if value is not None}

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """The values that make it the run it is, up to its seeds: runs that agree in these are repetitions."""
        return {path: _number(v) for path, v in self.leaves.items() if _is_identity(path) and not _is_seed(path)}

    @cached_property
    def seeds(self) -> dict[str, Any]:
        """Its seeds by path: a repetition differs in one of them."""
        return {path: v for path, v in self.leaves.items() if _is_identity(path) and _is_seed(path)}

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
            if option is not None and "@" not in group and group in config and _is_identity(group)
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
    run = Run(result, _parse((folder / CONFIG).read_text()))
    # accessed here, so that an error names the directory that lacks something
    assert run.scene
    _ = run.group, run.seed, [result.data[key] for key in NEEDED]
    return run


def _network(config: Config, role: str) -> str:
    # as `prepare.network_name` has it, whose module takes torch along: seconds before the first run is read
    net = config[role]["net"]
    return str(net["name"] if "name" in net else config["choices"][role])


def _is_seed(path: str) -> bool:
    """Whether a config path is a seed; a teacher's own seed counts as one."""
    return path.rsplit(".", 1)[-1] in ("seed", "data_seed")


def _number(value: Any) -> Any:
    # a temperature of 4 is one of 4.0
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@cache  # cached, since runs share their paths
def _is_identity(path: str) -> bool:
    path = path.removeprefix("teacher.training.")
    return not any(path == name or path.startswith(f"{name}.") for name in NOT_IDENTITY)


def _folders(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place}: no such directory")
        for folder, below, files in os.walk(place):
            if CONFIG in files:
                below.clear()  # a run's own subfolders contain no runs
                yield Path(folder)


def _parse(text: str) -> Config:
    # runs of a sweep share most of their config: each top-level block is parsed once
    config: Config = {}
    for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE):
        if block.strip():
            config |= _block(block)
    return config


@cache
def _block(text: str) -> Config:
    return yaml.load(text, Loader=_Loader)
