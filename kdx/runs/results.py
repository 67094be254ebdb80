"""The result of a finished run, and how result files are written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import OmegaConf

from kdx.core.errors import UserError
from kdx.core.files import atomic_write
from kdx.runs.folder import PREDICTIONS, RESULT, STUDENT, is_done

if TYPE_CHECKING:
    from torch import Tensor

Protocol = Literal["last", "best_on_test", "val_selected"]


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        folder: Its directory.
        data: Content of `result.json`.
    """

    folder: Path
    data: dict[str, Any]

    @property
    def student(self) -> Path:
        """The exported student's weights."""
        return self.folder / STUDENT

    def metric(self, name: str, protocol: Protocol = "last") -> float | None:
        """A measurement under a protocol; None if it was not made.

        Args:
            name: Full metric name, such as "test/top1".
            protocol: Which epoch's measurement to read; the last epoch's by default.
        """
        metrics = self.data["metrics"][protocol]
        return None if metrics is None else metrics.get(name)


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically."""
    _write(path, json.dumps(data, indent=2) + "\n")


def write_yaml(path: Path, data: Any) -> None:
    """Write a YAML file atomically."""
    _write(path, OmegaConf.to_yaml(OmegaConf.create(data)))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def finished(folder: Path) -> Result | None:
    """The result in a run's directory; None if the run is not finished."""
    if not is_done(folder):
        return None
    return Result(folder, json.loads((folder / RESULT).read_text()))


def save_predictions(folder: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write the predictions atomically. Raises UserError if the folder cannot be written."""
    from safetensors.torch import save  # imports torch; its save_file hides errors of the disk

    try:
        with atomic_write(folder / PREDICTIONS) as file:
            file.write(save(dict(tensors)))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
