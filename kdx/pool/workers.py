"""Worker processes that train teams, several at a time."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from kdx.config.schema import RunConfig
from kdx.core.notice import stop
from kdx.pool.run_fused import run_together
from kdx.pool.task import Task, Team
from kdx.runs import signals
from kdx.runs.lock import PAUSE, LockedError
from kdx.runs.results import Result

BUSY = "busy"  # a worker's answer for a run that another process trains


@dataclass(eq=False)
class _Worker:
    team: Team
    process: BaseProcess
    line: Connection


class Workers:
    """Processes that each train a team. They end when this process ends, even if it is killed.

    Args:
        jobs: Processes at a time; each gets its share of the threads.
    """

    def __init__(self, jobs: int):
        self.jobs, self._threads = jobs, max(1, torch.get_num_threads() // jobs)
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        # workers are forked from a process that has imported everything
        self._context.set_forkserver_preload(["kdx.pool.run_fused"])
        self._working: list[_Worker] = []

    @property
    def full(self) -> bool:
        return len(self._working) >= self.jobs

    @property
    def tasks(self) -> list[Task]:
        """Tasks in training."""
        return [task for worker in self._working for task in worker.team]

    def start(self, team: Team) -> None:
        here, there = self._context.Pipe()
        configs = [task.config for task in team]
        process = self._context.Process(target=_work, args=(configs, team[0].folder, self._threads, there))
        process.start()
        there.close()
        self._working.append(_Worker(team, process, here))

    def ended(self) -> list[tuple[Team, dict[Path, str]]]:
        """Teams whose process has ended, and why tasks have no result, by directory. Waits for one team or a pause."""
        wait([worker.process.sentinel for worker in self._working], PAUSE)
        done = [worker for worker in self._working if not worker.process.is_alive()]
        self._working = [worker for worker in self._working if worker not in done]
        return [(worker.team, _reasons(worker)) for worker in done]

    def stop(self) -> None:
        for worker in self._working:
            worker.process.terminate()
            worker.process.join()


def _reasons(worker: _Worker) -> dict[Path, str]:
    code = worker.process.exitcode
    how = f"its process was killed by signal {-code}" if code and code < 0 else f"exit code {code}"
    reasons = {task.folder: f"{how}; see {worker.team[0].folder}/output.txt" for task in worker.team}
    for place, reason in _received(worker.line):
        folder = worker.team[place].folder
        del reasons[folder]
        if reason:
            reasons[folder] = reason
    worker.line.close()
    return reasons


def _received(line: Connection) -> Iterable[tuple[int, str]]:
    try:
        while line.poll():
            yield line.recv()
    except (EOFError, OSError):
        return


def _work(configs: Sequence[RunConfig], folder: Path, threads: int, line: Connection) -> None:
    """Train a team in this worker; its output goes to `output.txt` in the directory of its first task."""
    threading.Thread(target=_die_with, args=(line,), daemon=True).start()
    signals.install()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which then sends SIGTERM
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "output.txt", "a") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    torch.set_num_threads(threads)
    try:
        for place, outcome in run_together(configs):
            line.send((place, _said(outcome)))
    except KeyboardInterrupt as error:
        stop(signals.exit_code(error), [signals.stop_message(error)])


def _said(outcome: Result | Exception) -> str:
    """Why there is no result; empty if there is one."""
    if isinstance(outcome, Result):
        return ""
    return BUSY if isinstance(outcome, LockedError) else f"{type(outcome).__name__}: {outcome}"


def _die_with(line: Connection) -> None:
    """Kill this worker when the process at the other end is gone, so that a killed study leaves no workers."""
    try:
        line.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGKILL)
