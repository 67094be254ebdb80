"""Atomic writes: a file appears whole or not at all. Reads that a pipe or a device cannot block."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from unicodedata import category

from kdx.core.errors import CONTROLS, UserError


@contextmanager
def atomic_write(path: Path, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` for the block, then move it into place.

    The data reach the disk before the rename, and the rename before the block's end. So a kill or a power cut at any
    moment leaves either the old file (under `keep`, where that is given) or the new one. Each process has a temporary
    file of its own. If the block raises, the old file stays.

    Args:
        path: The file to write; its folder must exist.
        keep: Where the old file is moved; None replaces it.

    Raises:
        OSError: The disk is full, or the folder cannot be written; the error names `path`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "greeting.txt"
        >>> with atomic_write(path) as file:
        ...     _ = file.write(b"hello")
        >>> path.read_text()
        'hello'
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        raise _naming(path, error) from error.__cause__
    finally:
        part.unlink(missing_ok=True)


def _naming(path: Path, error: OSError) -> OSError:
    """The error with the file's name: a write to a full disk reports none."""
    return type(error)(error.errno, error.strerror, str(path)) if error.errno else error


def as_file_name(text: str) -> str:
    """Text as the name of one file: no separator of folders, no control character, no name of a parent folder.

    Example:
        >>> as_file_name("timm/resnet18"), as_file_name("../x")
        ('timm_resnet18', '_.._x')
    """
    name = "".join("_" if c == "/" or category(c) in CONTROLS else c for c in text)
    return f"_{name}" if name.startswith(".") else name


def below(folder: Path, name: str, key: str) -> Path:
    """The folder of a name below another; the name may have slashes.

    Args:
        folder: The upper folder.
        name: Given by a user.
        key: The key that gives it, for the message.

    Raises:
        UserError: The name leads out of the folder.

    Example:
        >>> below(Path("outputs"), "crd/main", "study.name").as_posix()
        'outputs/crd/main'
    """
    parts = name.split("/")
    if not name or any(as_file_name(part) != part or not part for part in parts):
        raise UserError(f"{key}={name!r} must be the name of a folder inside {folder}")
    return folder / name


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that its renames survive a power cut.

    Example:
        >>> import tempfile
        >>> sync_folder(Path(tempfile.mkdtemp()))
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """The contents of a regular file.

    Args:
        path: The file, or a link to one.
        limit: Largest size that is read, in bytes.

    Raises:
        OSError: The file is missing, cannot be read, is larger, or is a folder, a pipe or a device.

    Example:
        >>> read_file("/dev/null", 1)
        Traceback (most recent call last):
        OSError: it is no regular file
    """
    # without O_NONBLOCK, opening a pipe waits for a writer
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        if status.st_size > limit:
            raise OSError(f"its {status.st_size} bytes are more than the limit of {limit}")
        return file.read()
