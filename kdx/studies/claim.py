"""A run's directory belongs to one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdx.core.errors import UserError


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a directory for the block; the system lets go of it when the process dies, however it dies.

    Raises:
        UserError: Another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training in {folder}; wait for it or stop it") from None
        yield
