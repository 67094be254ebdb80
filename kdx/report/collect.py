"""Collection of finished runs and their configs below some directories."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdx.config.compose import Config
from kdx.config.identity import canonical, counts, experiment, leaves, seeds
from kdx.config.past import read_config
from kdx.core.errors import DamagedError, UserError, reason
from kdx.runs.checksums import read_checked
from kdx.runs.folder import CONFIG, DONE, ERROR, LOCK, RESULT, is_done
from kdx.runs.results import Result, finished

# entries of a result that readers take for granted, and their types
NEEDED = {
    "code.commit": (str, type(None)),
    "code.dirty": (bool, type(None)),
    "versions.torch": (str,),
    "versions.python": (str,),
    "device.name": (str,),
    "device.threads": (int,),
}


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
        """The values that distinguish repetitions, by dotted path."""
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
class Collected:
    """Contents of some directories.

    Attributes:
        runs: Finished runs, sorted by name.
        unfinished: Directories of unfinished runs.
        failed: Unfinished runs that stopped with an error.
        problems: One line for each finished run with a damaged file; it begins with the file's path.
    """

    runs: list[Run]
    unfinished: list[Path]
    failed: list[Path]
    problems: list[str]


def collect(places: Sequence[Path]) -> Collected:
    """Read all finished runs below some directories.

    Raises:
        UserError: A place is not a directory, or there is no finished run.
    """
    found = Collected([], [], [], [])
    for folder in sorted(set(_folders(places)), key=lambda f: f.name):
        if not is_done(folder):
            found.unfinished.append(folder)
            if (folder / ERROR).exists():
                found.failed.append(folder)
            continue
        try:
            found.runs.append(read(folder))
        except DamagedError as error:
            found.problems.append(str(error))
    if not found.runs:
        where = ", ".join(map(str, places))
        rest = f"; {len(found.unfinished)} are not finished" if found.unfinished else ""
        rest += f"; {len(found.problems)} are damaged" if found.problems else ""
        raise UserError(f"no finished run below {where}{rest}" + "".join(f"\n{line}" for line in found.problems))
    return found


def read(folder: Path) -> Run:
    """Read a finished run's directory.

    Raises:
        UserError: The run is not finished.
        DamagedError: Its `config.yaml` or `result.json` is damaged.
    """
    result = finished(folder)
    if result is None:
        raise UserError(f"{folder} is not a finished run")
    for path, kinds in NEEDED.items():
        entry, key = path.split(".")
        if key not in result.data[entry] or not isinstance(result.data[entry][key], kinds):
            raise DamagedError(f"{folder / RESULT} is damaged: its {path} is {result.data[entry].get(key)!r:.40}")
    read_checked(folder, CONFIG)
    run = Run(result, read_config(folder / CONFIG))
    try:  # accessed here, so that an error names the file that lacks something
        _ = run.scene, run.group, run.seeds
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedError(f"{folder / CONFIG} is damaged: {reason(error)}") from None
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
            # a run's folder, even where some of its files are missing
            if CONFIG in files or (DONE in files and (RESULT in files or LOCK in files)):
                below.clear()  # a run's own subfolders contain no runs
                yield Path(folder)
