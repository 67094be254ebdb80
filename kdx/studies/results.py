"""What a run leaves behind."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import OmegaConf

from kdx.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PREDICTIONS = "predictions.safetensors"

Protocol = Literal["last", "best_on_test", "val_selected"]


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        folder: Its directory.
        data: What `result.json` says.
    """

    folder: Path
    data: dict[str, Any]

    @property
    def student(self) -> Path:
        """The exported student's weights."""
        return self.folder / "student.safetensors"

    def metric(self, name: str, protocol: Protocol = "last") -> float | None:
        """A measurement under a protocol; None where it was not made.

        Args:
            name: Full metric name, such as "test/top1".
            protocol: Which epoch's number: the last one's unless said otherwise.
        """
        metrics = self.data["metrics"][protocol]
        return None if metrics is None else metrics.get(name)


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file whole or not at all."""
    _write(path, json.dumps(data, indent=2) + "\n")


def write_yaml(path: Path, data: Any) -> None:
    """Write a YAML file whole or not at all."""
    _write(path, OmegaConf.to_yaml(OmegaConf.create(data)))


def _write(path: Path, text: str) -> None:
    # each process has its own half-written file
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def finished(folder: Path) -> Result | None:
    """The result of a run's directory, where the run is finished."""
    if not (folder / "DONE").exists():
        return None
    return Result(folder, json.loads((folder / "result.json").read_text()))


def save_predictions(folder: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write the file whole or not at all. Raises UserError where the folder cannot be written."""
    from safetensors.torch import save  # torch comes with it; its save_file hides what the disk said

    part = folder / f".{PREDICTIONS}.part"
    try:
        part.write_bytes(save(dict(tensors)))
        os.replace(part, folder / PREDICTIONS)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
