"""Checkpoints that stay readable when the process is killed at any moment."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from kdx.core.errors import UserError, shown
from kdx.core.files import atomic_write
from kdx.core.notice import notice

FORMAT = 3


class Checkpoints:
    """Writes `last.pt` atomically and keeps its predecessor as `previous.pt`.

    Args:
        folder: Directory of a run's checkpoints.
        run: Identity of the run, which each checkpoint records.
        teacher: Checksum of the teacher's weights, which each checkpoint records; None without a teacher.
    """

    def __init__(self, folder: Path, run: str, teacher: str | None = None):
        self.run, self.teacher = run, teacher
        self.last, self.previous = folder / "last.pt", folder / "previous.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write, flush to disk, then rename. Raises OSError if the disk is full or read-only."""
        self.last.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_write(self.last, keep=self.previous) as file:
                torch.save({"format": FORMAT, "run": self.run, "teacher": self.teacher, **state}, file)
        except RuntimeError as error:
            # torch reports a full disk as a RuntimeError about its archive; the OSError is its context
            if isinstance(full := error.__context__, OSError):
                raise OSError(full.errno, full.strerror, str(self.last)) from None
            raise

    def load(self) -> dict[str, Any] | None:
        """The newest state, or None if the run has no checkpoint.

        Raises:
            UserError: Both files are damaged, another run or another version of kdx wrote them, or the student was
                trained with other weights of its teacher.
        """
        damaged = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                _verify(path)
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises many types here, from EOFError to UnpicklingError
                damaged.append(f"{path} ({type(error).__name__})")
                continue
            if not isinstance(state, dict) or state.get("format") != FORMAT:
                raise UserError(f"{path} is no checkpoint of this version of kdx; fresh=true restarts the run")
            if (other := state.get("run", self.run)) != self.run:  # missing in older checkpoints
                raise UserError(
                    f"{path} is a checkpoint of the run {shown(str(other))}, not of this run ({self.run}); put its own "
                    "checkpoint back, or restart the run with fresh=true"
                )
            if (former := state.get("teacher", self.teacher)) != self.teacher:  # missing in older checkpoints
                raise UserError(
                    f"{path} is of a teacher with the sha256 {str(former)[:12]}, and the teacher's weights now have "
                    f"{str(self.teacher)[:12]}; put the former weights back, or restart the run with fresh=true"
                )
            if damaged:
                notice(f"damaged checkpoint: {damaged[0]}; the run continues from {path}, which is older")
            return state
        if damaged:
            raise UserError(f"damaged checkpoint: {', '.join(damaged)}; fresh=true restarts the run")
        return None

    def clear(self) -> None:
        """Remove the checkpoints of a finished run."""
        for path in (self.last, self.previous, *self.last.parent.glob(".last.pt.*.part")):
            path.unlink(missing_ok=True)


def _verify(path: Path) -> None:
    """Check the CRCs in the archive, which torch writes and does not check."""
    with zipfile.ZipFile(path) as archive:
        if (part := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the CRC of {part} is wrong")
