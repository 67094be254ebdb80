"""The log of a run: one JSON line per event, and its copies elsewhere."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from kdx.core.errors import DamagedError, UserError, reason


class View(Protocol):
    """Shows the log elsewhere, as W&B does. `metrics.jsonl` stays the reference."""

    def log(self, line: Mapping[str, float | None]) -> None: ...

    def close(self, summary: Mapping[str, object] | None) -> None: ...


def recorded(path: Path) -> list[dict[str, float | None]]:
    """The lines of a log file. Raises DamagedError for the first line that is no event."""
    try:
        texts = path.read_bytes().splitlines()
    except OSError as error:
        raise DamagedError(reason(error)) from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise DamagedError(f"{path} is damaged: line {number} is no event; fresh=true restarts the run")
        lines.append(line)
    return lines


class Log:
    """Writes `metrics.jsonl`, flushed after each line.

    Args:
        path: The file; None for no file.
        position: Length in bytes to which the file is truncated. A resumed run writes the lines after its last
            checkpoint again.

    Raises:
        UserError: The file is shorter than `position`.
    """

    def __init__(self, path: Path | None, position: int):
        self.path = path
        self._views: list[View] = []
        self._file, self._before = None, position
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = open(path, "ab")
        except OSError as error:
            raise DamagedError(reason(error)) from None
        if self._file.tell() < position:
            raise UserError(f"{path} is shorter than at the last checkpoint; fresh=true restarts the run")
        self._file.truncate(position)
        self._file.seek(0, os.SEEK_END)

    def add_view(self, view: View) -> None:
        self._views.append(view)

    def lines(self) -> list[dict[str, float | None]]:
        """All lines so far."""
        if self.path is None:
            return []
        return recorded(self.path)

    def write(self, line: Mapping[str, float]) -> None:
        """Write one event; JSON has no NaN or infinity, so these become null."""
        clean = {k: v if math.isfinite(v) else None for k, v in line.items()}
        if self._file is not None:
            try:
                self._file.write(json.dumps(clean).encode() + b"\n")
                self._file.flush()
            except OSError as error:  # a full disk; the error of a write names no file
                raise OSError(error.errno, error.strerror, str(self.path)) from None
        for view in self._views:
            view.log(clean)

    @property
    def position(self) -> int:
        """Length in bytes of the file on disk; without a file, the position at which a resumed run would continue."""
        if self._file is None:
            return self._before
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self, summary: Mapping[str, object] | None) -> None:
        """Close the file and the views.

        Args:
            summary: Result of a finished run; None for a run that did not finish.
        """
        for view in self._views:
            view.close(summary)
        if self._file is not None:
            self._file.close()
