"""Many runs towards one answer: each once, teachers first, and none stops the others."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import torch

from kdx.config.compose import Config
from kdx.studies.claim import Claimed, held
from kdx.studies.results import Result, finished
from kdx.studies.run import name, run
from kdx.studies.status import failure

BUSY = 75  # exit code of a process that found its run held by another
PAUSE = 1.0  # seconds between two looks at runs that another process holds


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
class _Task:
    label: str
    config: Config
    folder: Path
    teacher: Path | None


@dataclass
class _Worker:
    task: _Task
    process: BaseProcess
    lifeline: Connection


def run_all(
    configs: Mapping[str, Config], jobs: int, retry: Literal["failed"] | None
) -> tuple[dict[str, Result], list[Failure]]:
    """Run what is not finished yet; two labels with one config are one run.

    A run that another process holds is waited for, and taken over where that process dies.

    Args:
        configs: Prepared configs by label.
        jobs: Runs at a time. With one, they run in this process.
        retry: "failed" runs failed ones again; None reports them as they are.

    Returns:
        Results by label, and what failed; each label is in one of the two.
    """
    tasks = _plan(configs)
    failed: dict[Path, str] = {}
    todo: list[_Task] = []
    for task in tasks.values():
        if finished(task.folder) is not None and not task.config["fresh"]:
            continue
        error = failure(task.folder)
        if error and retry is None and not task.config["fresh"] and not held(task.folder):
            failed[task.folder] = f"{error}; failed before, retry=failed tries it again"
        else:
            todo.append(task)
    if todo:
        failed |= _in_turn(todo, failed) if jobs == 1 else _in_parallel(todo, failed, jobs)
    results: dict[str, Result] = {}
    failures: list[Failure] = []
    for label, config in configs.items():
        folder = folder_of(config)
        result = None if folder in failed else finished(folder)
        if result is not None:
            results[label] = result
        else:
            failures.append(Failure(label, folder, failed.get(folder, "no result")))
    return results, failures


def look_up(configs: Mapping[str, Config]) -> tuple[dict[str, Result], list[Failure]]:
    """What `run_all` would find without running anything; a run that is merely missing is no failure."""
    results: dict[str, Result] = {}
    failures: list[Failure] = []
    for label, config in configs.items():
        folder = folder_of(config)
        result = finished(folder)
        if result is not None:
            results[label] = result
        elif error := failure(folder):
            failures.append(Failure(label, folder, error))
    return results, failures


def folder_of(config: Config) -> Path:
    """The directory of a run."""
    return Path(config["paths"]["runs"]) / name(config)


def _plan(configs: Mapping[str, Config]) -> dict[Path, _Task]:
    """Tasks by directory, each after the teacher that it needs."""
    tasks: dict[Path, _Task] = {}

    def add(label: str, config: Config) -> Path:
        folder = folder_of(config)
        if folder in tasks:
            return folder
        teacher = None
        if config["teacher"] is not None and config["teacher"]["training"] is not None and finished(folder) is None:
            training = config["teacher"]["training"]
            paths = {**config["paths"], "runs": config["paths"]["teachers"]}
            teacher = add(f"teacher {training['choices']['student']}", {**training, "paths": paths})
        tasks[folder] = _Task(label, config, folder, teacher)
        return folder

    for label, config in configs.items():
        add(label, config)
    return tasks


def _orphaned(task: _Task, failed: Mapping[Path, str]) -> str | None:
    """Why a task cannot run; None where it can."""
    if task.teacher is None or task.teacher not in failed:
        return None
    return f"its teacher failed: {failed[task.teacher]}"


def _in_turn(todo: list[_Task], before: Mapping[Path, str]) -> dict[Path, str]:
    failed, count, told = dict(before), len(todo), set()
    threads = torch.get_num_threads()
    while todo:
        task = todo.pop(0)
        if reason := _orphaned(task, failed):
            failed[task.folder] = reason
            continue
        if any(other.folder == task.teacher for other in todo):
            todo.append(task)
            continue
        if task.folder not in told:
            _say(f"[{count - len(todo)}/{count}] {task.label}")
        torch.set_num_threads(threads)  # a run before may have asked for its own
        try:
            run(task.config)
        except Claimed as busy:
            if task.folder not in told:
                _say(f"{task.label}: {busy}; its result is waited for")
                told.add(task.folder)
            if all(other.folder in told for other in todo):
                time.sleep(PAUSE)
            todo.append(task)
        except Exception as error:
            failed[task.folder] = _tell(task, f"{type(error).__name__}: {error}")
    return failed


def _in_parallel(todo: list[_Task], before: Mapping[Path, str], jobs: int) -> dict[Path, str]:
    failed, count, started = dict(before), len(todo), 0
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("forkserver")
    # one process that has imported everything and done nothing: a start costs a fork
    context.set_forkserver_preload(["kdx.studies.run"])
    working: list[_Worker] = []
    resting: dict[Path, float] = {}
    told: set[Path] = set()
    try:
        while todo or working:
            now = time.monotonic()
            for task in list(todo):
                pending = {t.folder for t in todo} | {w.task.folder for w in working}
                if reason := _orphaned(task, failed):
                    failed[task.folder] = reason
                    todo.remove(task)
                elif len(working) < jobs and task.teacher not in pending and resting.get(task.folder, 0) <= now:
                    if task.folder not in told:
                        started += 1
                        _say(f"[{started}/{count}] {task.label}")
                    todo.remove(task)
                    working.append(_start(context, task, threads))
            for worker in _ended(working):
                working.remove(worker)
                worker.lifeline.close()
                code = worker.process.exitcode
                if code == BUSY:
                    if worker.task.folder not in told:
                        _say(f"{worker.task.label}: another process is at it; its result is waited for")
                        told.add(worker.task.folder)
                    resting[worker.task.folder] = time.monotonic() + PAUSE
                    todo.append(worker.task)
                elif code != 0:
                    how = f"its process was killed by signal {-code}" if code and code < 0 else f"exit code {code}"
                    failed[worker.task.folder] = _tell(worker.task, f"{how}; see output.txt")
    finally:
        for worker in working:
            worker.process.terminate()
            worker.process.join()
    return failed


def _start(context: ForkServerContext, task: _Task, threads: int) -> _Worker:
    there, here = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task.config, task.folder, threads, there))
    process.start()
    there.close()
    return _Worker(task, process, here)


def _ended(working: Iterable[_Worker]) -> list[_Worker]:
    """Those that are done, once there is one, or after a pause."""
    working = list(working)
    wait([worker.process.sentinel for worker in working], PAUSE)
    return [worker for worker in working if not worker.process.is_alive()]


def _work(config: Config, folder: Path, threads: int, lifeline: Connection) -> None:
    """A run in a process of its own; what it prints goes to `output.txt` in its directory."""
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "output.txt", "a") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    torch.set_num_threads(threads)
    try:
        run(config)
    except Claimed:
        sys.exit(BUSY)


def _die_with(lifeline: Connection) -> None:
    """End with the process that holds the other end, however it ends: a killed study leaves nothing behind."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGKILL)


def _tell(task: _Task, otherwise: str) -> str:
    error = failure(task.folder) or otherwise.splitlines()[0]
    _say(f"failed: {Failure(task.label, task.folder, error)}")
    return error


def _say(text: str) -> None:
    print(f"kdx: {text}", file=sys.stderr, flush=True)
