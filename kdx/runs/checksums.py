"""Checksums of a finished run's files, stored in its DONE: a file that changed later is refused.

Runs of older versions have an empty DONE; of their files only the format is checked.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from kdx.core.errors import DamagedError, reason
from kdx.core.files import atomic_write
from kdx.runs.folder import CONFIG, DONE, PREDICTIONS, RECORD, RESULT, SELECTED_STUDENT, STUDENT

CHECKED = (CONFIG, RECORD, RESULT, PREDICTIONS, STUDENT, SELECTED_STUDENT)


def write_checksums(folder: Path) -> None:
    """Write DONE, with the checksums of the run's files. Raises OSError if the disk is full."""
    checksums = {name: _sha256(folder / name) for name in CHECKED if (folder / name).exists()}
    with atomic_write(folder / DONE) as file:
        file.write((json.dumps({"sha256": checksums}, indent=2) + "\n").encode())


def read_checked(folder: Path, name: str) -> bytes:
    """Read a file of a finished run and compare its checksum with the one in DONE.

    Args:
        folder: The run's directory.
        name: The file's name.

    Raises:
        DamagedError: The file or DONE is missing, cannot be read, or was changed after the run had finished.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedError(reason(error)) from None
    expected = checksums(folder).get(name)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise DamagedError(f"{path} is damaged: it changed after the run had finished (its sha256 in DONE is another)")
    return content


def checksums(folder: Path) -> Mapping[str, str]:
    """SHA-256 by file name; empty for an unfinished run and for one of an older version.

    Raises:
        DamagedError: DONE holds something else.
    """
    path = folder / DONE
    try:
        text = path.read_bytes()
        found = json.loads(text)["sha256"] if text.strip() else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DamagedError(reason(error)) from None
    except (ValueError, KeyError, TypeError):
        raise DamagedError(f"{path} is damaged: it holds no list of checksums") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise DamagedError(f"{path} is damaged: it holds no list of checksums")
    return found


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
