"""Checkpoints that survive a kill at any moment."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from kdx.core.errors import UserError
from kdx.core.files import atomic_write

FORMAT = 3


class Checkpoints:
    """Writes `last.pt` whole or not at all, and keeps the one before as `previous.pt`.

    Args:
        folder: Directory of a run's checkpoints.
    """

    def __init__(self, folder: Path):
        self.last, self.previous = folder / "last.pt", folder / "previous.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write, flush to the disk, then rename. Raises OSError where the disk is full or read-only."""
        self.last.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_write(self.last, keep=self.previous) as file:
                torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:
            # torch reports a full disk as a wrong position in its archive; the OSError came before
            if isinstance(full := error.__context__, OSError):
                raise OSError(full.errno, full.strerror, str(self.last)) from None
            raise

    def load(self) -> dict[str, Any] | None:
        """The newest state, or None for a run that has none yet.

        Raises:
            UserError: Both files are damaged, or written by another version.
        """
        damaged = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                _verify(path)
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises anything from EOFError to UnpicklingError here
                damaged.append(f"{path} ({type(error).__name__})")
                continue
            if not isinstance(state, dict) or state.get("format") != FORMAT:
                raise UserError(f"{path} is not a checkpoint of this version of kdx; fresh=true starts the run over")
            return state
        if damaged:
            raise UserError(f"damaged checkpoint: {', '.join(damaged)}; fresh=true starts the run over")
        return None

    def clear(self) -> None:
        """Remove the checkpoints of a finished run."""
        for path in (self.last, self.previous, *self.last.parent.glob(".last.pt.*.part")):
            path.unlink(missing_ok=True)


def _verify(path: Path) -> None:
    """Compare the sums that the archive carries of its parts, which torch writes and does not read."""
    with zipfile.ZipFile(path) as archive:
        if (part := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the part {part} differs from its sum")
