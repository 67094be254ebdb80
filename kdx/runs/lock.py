"""The lock of a run's directory: one process at a time trains there."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kdx.core.errors import UserError
from kdx.runs.folder import LOCK

PATIENCE = 0.5  # seconds; a process that only reads the lock's state releases it within milliseconds
PAUSE = 1.0  # seconds between two attempts to lock a run that another process holds


class LockedError(UserError):
    """Another process holds the lock of the directory."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a directory for the block; the system releases it when the process ends, also by a crash.

    Raises:
        LockedError: Another process holds the lock.
        UserError: The directory cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "w")
    except OSError as error:
        raise UserError(f"cannot write to {error.filename or folder}: {error.strerror}") from None
    with file:
        deadline = time.monotonic() + PATIENCE
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise LockedError(f"another process is training in {folder}; wait for it or stop it")
            time.sleep(0.01)
        yield


def is_locked(folder: Path) -> bool:
    """Whether a living process holds the lock of a directory."""
    try:
        file = open(folder / LOCK)
    except OSError:
        return False
    with file:
        return not _lock(file, fcntl.LOCK_SH)


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
