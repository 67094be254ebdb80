"""A run in the pool, and the messages about it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdx.config.schema import RunConfig
from kdx.core.notice import say
from kdx.runs.folder import failure
from kdx.runs.results import Result
from kdx.runs.reuse.record import commit, when

FEW = 3  # results that are named one by one


@dataclass(frozen=True)
class Failure:
    """A run without a result.

    Attributes:
        label: Name of the run in its study.
        folder: Its directory.
        error: One line.
    """

    label: str
    folder: Path
    error: str

    def __str__(self) -> str:
        return f"{self.label}: {self.error} ({self.folder})"


@dataclass(frozen=True)
class Task:
    """A run to train.

    Attributes:
        label: Name of the run in its study.
        config: Prepared config.
        folder: Its directory.
        teachers: Directories of the runs that must finish first.
    """

    label: str
    config: RunConfig
    folder: Path
    teachers: frozenset[Path]


Team = list[Task]  # tasks that train together in one process; at least one, all with the same teachers


def announce(team: Team, done: int, count: int) -> None:
    """Print that a team starts; its first task is number `done + 1` of `count`."""
    last = done + len(team)
    place = f"{last}" if len(team) == 1 else f"{done + 1}-{last}"
    say(f"[{place}/{count}] {'; '.join(task.label for task in team)}{', together' if len(team) > 1 else ''}")


def report_failure(task: Task, otherwise: str) -> str:
    """Print that a task failed and return why: the reason in its directory, or else `otherwise`."""
    error = failure(task.folder) or otherwise.splitlines()[0]
    say(f"failed: {Failure(task.label, task.folder, error)}")
    return error


def report_finished(found: Mapping[Path, tuple[Result, str]]) -> None:
    """Print which results are used again: a line for each, or one for many.

    Args:
        found: Results, and notes on what was not compared, by directory.
    """
    if len(found) <= FEW:
        for folder, (result, note) in found.items():
            say(f"finished {when(result)} by {commit(result)}: {folder}{note}")
        return
    times = sorted(when(result) for result, _ in found.values())
    commits = sorted({commit(result) for result, _ in found.values()})
    notes = Counter(note for _, note in found.values() if note)
    more = "".join(f"{note} ({count})" for note, count in notes.most_common(1))
    shown = ", ".join(commits[:3]) + (f" and {len(commits) - 3} more" if len(commits) > 3 else "")
    say(f"{len(found)} runs are finished, from {times[0]} to {times[-1]}, by {shown}{more}")
