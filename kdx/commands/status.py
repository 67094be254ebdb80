"""`kdx status`: lists runs that are done, running, failed or waiting, from their directories alone."""

import json
import os
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from kdx.core.errors import DamagedError, printable, reason
from kdx.core.notice import stop
from kdx.runs.checksums import checksums, read_checked
from kdx.runs.folder import CONFIG, DONE, LOCK, RECORD, RESULT, failure, is_done
from kdx.runs.lock import is_locked
from kdx.runs.results import finished

State = Literal["done", "running", "failed", "waiting", "damaged"]
ORDER: tuple[State, ...] = ("running", "failed", "damaged", "waiting", "done")
COUNTED: tuple[State, ...] = ("done", "running", "failed", "waiting", "damaged")
UNITS = ("epochs", "steps", "examples")
TAIL = 65536  # bytes at the end of the record that are searched for its last line
HELP = """\
kdx status [outputs/...] [--all]

Lists the runs in the given folders (outputs, unless given) that are running, failed or waiting, and
counts those that are done; --all lists them too. A waiting run is unfinished, and no process trains it:
the command that started it resumes it. A damaged run has a file that cannot be read, or that changed after
the run had finished.
"""


@dataclass(frozen=True)
class Entry:
    """State of a run's directory.

    Attributes:
        folder: The directory.
        state: done; running (a living process holds the lock); failed (an error and no such process); damaged (a file
            that cannot be read); else waiting.
        progress: Completed fraction of the training, by the last line of its record; None if unknown.
        seconds_left: Estimated seconds until the end of training at the mean speed so far; None if unknown.
        error: Error message of a failed or damaged run; empty otherwise.
    """

    folder: Path
    state: State
    progress: float | None
    seconds_left: float | None
    error: str


def main(arguments: Sequence[str]) -> None:
    """Print the status. Exits with 2 where the command is wrong."""
    if any(a in ("-h", "--help") for a in arguments):
        print(HELP, end="")
        return
    folders = [a for a in arguments if a != "--all"]
    wrong = [f"unknown option '{a}'; see kdx status --help" for a in folders if a.startswith("-")]
    wrong = wrong or [f"{a}: no such directory" for a in folders if not Path(a).is_dir()]
    if wrong:
        stop(2, wrong)
    entries = [entry for folder in folders or ["outputs"] for entry in survey(Path(folder))]
    print(show(entries, "--all" in arguments))


def survey(root: Path) -> list[Entry]:
    """All runs below a folder, at any depth."""
    return [look(folder) for folder in sorted(runs(root))]


def runs(root: Path) -> Iterator[Path]:
    """Directories of runs: each has a lock file, or the files of a finished run."""
    try:
        with os.scandir(root) as found:
            listed = list(found)
    except OSError:
        return
    if _is_run({entry.name for entry in listed}):
        yield root
        return
    for entry in listed:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from runs(Path(entry.path))


def look(folder: Path) -> Entry:
    """The state of one run."""
    if is_done(folder):
        try:
            _check(folder)
        except DamagedError as error:
            return Entry(folder, "damaged", None, None, str(error))
        return Entry(folder, "done", 1.0, 0.0, "")
    running = is_locked(folder)
    if not running and (error := failure(folder)):
        return Entry(folder, "failed", None, None, error)
    try:
        progress, left = _pace(folder)
    except DamagedError as error:
        if not running:
            return Entry(folder, "damaged", None, None, str(error))
        progress, left = None, None
    if running:
        left = None if left is None else max(0.0, left - _age(folder / RECORD))
    return Entry(folder, "running" if running else "waiting", progress, left, "")


def _is_run(names: Set[str]) -> bool:
    return LOCK in names or {DONE, CONFIG} <= names or {DONE, RESULT} <= names


def _check(folder: Path) -> None:
    """Raise DamagedError for a finished run whose config or result cannot be believed."""
    for name in (CONFIG, RESULT):
        read_checked(folder, name)
    if not checksums(folder):  # of an older version
        finished(folder)


def _pace(folder: Path) -> tuple[float | None, float | None]:
    """Progress, and the estimated remaining seconds at the mean speed so far.

    Raises:
        DamagedError: The config or the record is damaged.
    """
    line = _last_line(folder / RECORD)
    if line is None:
        return None, None
    path = folder / CONFIG
    try:
        config: Any = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        duration, batch = config["trainer"]["duration"], config["trainer"]["batch_size"]
        whole = next((unit, duration[unit]) for unit in UNITS if duration.get(unit) is not None)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise DamagedError(reason(error)) from None
    except (ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration):
        raise DamagedError(f"{path} is damaged: it is not the config of a run") from None
    try:
        passed = {"epochs": line["epoch"], "steps": line["step"], "examples": line["step"] * batch}
        progress = min(1.0, passed[whole[0]] / whole[1])
        return progress, line["time/seconds"] * (1 - progress) / progress if progress > 0 else None
    except (KeyError, TypeError, ZeroDivisionError):
        raise DamagedError(f"{folder / RECORD} is damaged: its last line is no event") from None


def _last_line(path: Path) -> Any:
    """The last complete line of a record; None if there is none. Raises DamagedError."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(reason(error)) from None
    # the text after the last newline is incomplete or empty
    if len(lines) < 2:
        return None
    try:
        return json.loads(lines[-2])
    except ValueError:
        raise DamagedError(f"{path} is damaged: its last line is no event") from None


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def show(entries: Sequence[Entry], everything: bool) -> str:
    """A line for each run that is not done, and a count of all."""
    lines = []
    for entry in sorted(entries, key=lambda e: ORDER.index(e.state)):
        if entry.state == "done" and not everything:
            continue
        done = "" if entry.progress is None or entry.state == "done" else f"{100 * entry.progress:.0f} %"
        left = f"{span(entry.seconds_left)} left" if entry.seconds_left and entry.state != "done" else ""
        lines.append(f"{entry.state:<8} {done:>5} {left:>12}  {entry.folder}".rstrip())
        lines += [f"{'':<29}{entry.error}"] if entry.error else []
    counts = {state: sum(e.state == state for e in entries) for state in COUNTED}
    counts = {state: n for state, n in counts.items() if n or state != "damaged"}
    lines.append(", ".join(f"{n:,} {state}" for state, n in counts.items()) if entries else "no runs here")
    return printable("\n".join(lines))


def span(seconds: float) -> str:
    """ "3 h 20 min", "12 min" or "40 s"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
