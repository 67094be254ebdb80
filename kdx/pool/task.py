"""A run that many are waiting for, and how it is told that it failed."""

import sys
from dataclasses import dataclass
from pathlib import Path

from kdx.config.compose import Config
from kdx.runs.folder import failure
from kdx.runs.run import name


@dataclass(frozen=True)
class Failure:
    """A run that gave no result.

    Attributes:
        label: What the study calls it.
        folder: Its directory.
        error: In a line.
    """

    label: str
    folder: Path
    error: str

    def __str__(self) -> str:
        return f"{self.label}: {self.error} ({self.folder})"


@dataclass(frozen=True)
class Task:
    """A run to be done.

    Attributes:
        label: What the study calls it.
        config: Prepared.
        folder: Its directory.
        teachers: Directories of the runs that must be done before.
    """

    label: str
    config: Config
    folder: Path
    teachers: frozenset[Path]


Team = list[Task]  # what trains together in one process; never empty, and all with the same teachers


def folder_of(config: Config) -> Path:
    """The directory of a run."""
    return Path(config["paths"]["runs"]) / name(config)


def announce(team: Team, done: int, count: int) -> None:
    """Say that a team begins, of which the tasks number `done + 1` and following of `count`."""
    last = done + len(team)
    place = f"{last}" if len(team) == 1 else f"{done + 1}-{last}"
    say(f"[{place}/{count}] {'; '.join(task.label for task in team)}{', together' if len(team) > 1 else ''}")


def tell(task: Task, otherwise: str) -> str:
    """Say that a task failed; the reason that its directory gives, or else another."""
    error = failure(task.folder) or otherwise.splitlines()[0]
    say(f"failed: {Failure(task.label, task.folder, error)}")
    return error


def say(text: str) -> None:
    print(f"kdx: {text}", file=sys.stderr, flush=True)
