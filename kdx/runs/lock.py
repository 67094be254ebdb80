"""A run's directory belongs to one process at a time."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kdx.core.errors import UserError
from kdx.runs.folder import LOCK

PATIENCE = 0.5  # seconds; whoever only looks whether a run is held lets go within an instant
PAUSE = 1.0  # seconds between two looks at a run that another process holds


class Claimed(UserError):
    """Another process holds the directory."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a directory for the block; the system lets go of it when the process dies, however it dies.

    Raises:
        Claimed: Another process holds it.
        UserError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "w")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    with file:
        deadline = time.monotonic() + PATIENCE
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise Claimed(f"another process is training in {folder}; wait for it or stop it")
            time.sleep(0.01)
        yield


def held(folder: Path) -> bool:
    """Whether a living process holds a directory."""
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
