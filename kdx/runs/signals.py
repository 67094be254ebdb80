"""Signals that end a run: SIGTERM, SIGHUP and SIGUSR1, which schedulers send before they take a machine away.

A run that trains finishes its step, writes a checkpoint and ends; before that, and for a second signal, it ends at
once. The same command resumes it.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PARENT = "KDX_PARENT"  # environment variable: process that starts the runs of a sweep in other processes
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
POLL = 0.5  # seconds between two looks at the parent process
PATIENCE = 20.0  # seconds that workers have for a step and a checkpoint


class SignalledError(KeyboardInterrupt):
    """A signal ended the run.

    Args:
        number: The signal.
        step: Step at which a checkpoint was written; None if none was.
    """

    def __init__(self, number: int, step: int | None):
        super().__init__("")
        self.number, self.step = number, step


_caught: list[int] = []
_training = 0


def install() -> None:
    """Handle the signals in this process from now on. A signal that is ignored, as under nohup, stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    _caught.clear()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _catch)


def caught() -> int | None:
    """The signal that asks this process to end; None if there was none."""
    return _caught[0] if _caught else None


@contextlib.contextmanager
def training() -> Iterator[None]:
    """A block that looks at `caught` after each step, so that a signal need not interrupt a step."""
    global _training
    _training += 1
    try:
        yield
    finally:
        _training -= 1


def _catch(number: int, _: FrameType | None) -> None:
    again = bool(_caught)
    _caught.append(number)
    if again or not _training:
        _pass_on(number)
        raise SignalledError(_caught[0], None)


def _pass_on(number: int) -> None:
    """Send a signal to joblib's workers and wait for them to save; joblib itself would kill them."""
    ends = time.monotonic() + PATIENCE
    workers = list(_joblib_workers())
    for pid in workers:
        with contextlib.suppress(OSError):
            os.kill(pid, number)
    while time.monotonic() < ends and not set(workers).isdisjoint(_joblib_workers()):
        time.sleep(0.1)


def _joblib_workers() -> Iterator[int]:
    for listed in Path("/proc/self/task").glob("*/children"):
        for pid in listed.read_text().split():
            with contextlib.suppress(OSError):
                words, state = Path("/proc", pid, "cmdline").read_bytes(), Path("/proc", pid, "stat").read_text()
                if b"LokyProcess" in words and state.rpartition(")")[2].split()[0] != "Z":
                    yield int(pid)


def watch_parent() -> bool:
    """In a worker process of a sweep, end with the process that started it, and leave Ctrl-C to that process.

    Returns:
        Whether this process is such a worker.
    """
    given = os.environ.get(PARENT, "")
    parent = int(given) if given.isdigit() else 0
    if parent in (0, os.getpid()) or os.getppid() != parent:
        return False

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGKILL)

    if not any(thread.name == PARENT for thread in threading.enumerate()):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=watch, name=PARENT, daemon=True).start()
    return True


def stop_message(error: KeyboardInterrupt) -> str:
    """Why a command stopped, and how it goes on."""
    if isinstance(error, SignalledError) and error.step is not None:
        return f"{signal.Signals(error.number).name}: saved at step {error.step}; the same command resumes"
    if isinstance(error, SignalledError):
        return f"{signal.Signals(error.number).name}: stopped; the same command goes on from the last checkpoint"
    unsaved = error.args[0] if error.args else ""
    return f"stopped{unsaved}; the same command {'starts again' if unsaved else 'resumes'}"


def exit_code(error: KeyboardInterrupt) -> int:
    """Exit status as a shell reports the signal: 130 for Ctrl-C.

    Example:
        >>> exit_code(KeyboardInterrupt())
        130
    """
    return 128 + (error.number if isinstance(error, SignalledError) else signal.SIGINT)
