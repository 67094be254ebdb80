"""The record of a run: one JSON line per event, and views of it."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from kdx.core.errors import UserError


class View(Protocol):
    """Something that shows the record elsewhere, such as W&B. It is never the record."""

    def log(self, line: Mapping[str, float | None]) -> None: ...

    def close(self, summary: Mapping[str, object] | None) -> None: ...


def recorded(path: Path) -> list[dict[str, float | None]]:
    """The lines of a record."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class Log:
    """`metrics.jsonl`, flushed at each line: the record of truth.

    Args:
        path: The file; None keeps no record.
        position: Length in bytes up to which the file is kept. What a killed run wrote after its last
            checkpoint is cut off, since the resumed run writes it again.

    Raises:
        UserError: The file is shorter than that.
    """

    def __init__(self, path: Path | None, position: int):
        self.path = path
        self._views: list[View] = []
        self._file, self._before = None, position
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab")
        if self._file.tell() < position:
            raise UserError(f"{path} is shorter than at the last checkpoint; fresh=true starts the run over")
        self._file.truncate(position)
        self._file.seek(0, os.SEEK_END)

    def add_view(self, view: View) -> None:
        self._views.append(view)

    def lines(self) -> list[dict[str, float | None]]:
        """Everything recorded so far."""
        if self.path is None:
            return []
        return recorded(self.path)

    def write(self, line: Mapping[str, float]) -> None:
        """Record one event; numbers that are not finite become null, since JSON has none."""
        clean = {k: v if math.isfinite(v) else None for k, v in line.items()}
        if self._file is not None:
            self._file.write(json.dumps(clean).encode() + b"\n")
            self._file.flush()
        for view in self._views:
            view.log(clean)

    @property
    def position(self) -> int:
        """Length in bytes of what is recorded and on disk.

        Without a file that of what was recorded before: whoever records again goes on behind it.
        """
        if self._file is None:
            return self._before
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self, summary: Mapping[str, object] | None) -> None:
        """Close the file and the views; the summary is the result of a run that finished."""
        for view in self._views:
            view.close(summary)
        if self._file is not None:
            self._file.close()
