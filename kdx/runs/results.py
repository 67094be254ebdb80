"""The result of a finished run, and how result files are written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml
from omegaconf._utils import OmegaConfDumper

from kdx.core.errors import DamagedError, UserError, reason
from kdx.core.files import atomic_write
from kdx.runs.checksums import read_checked
from kdx.runs.folder import PREDICTIONS, RESULT, STUDENT, is_done

if TYPE_CHECKING:
    from torch import Tensor

Protocol = Literal["last", "best_on_test", "val_selected"]
# entries that every version wrote, and their types
ENTRIES: Mapping[str, tuple[type, ...]] = {
    "choices": (dict,),
    "seed": (int,),
    "metrics": (dict,),
    "teacher": (dict, type(None)),
    "seconds": (int, float),
    "finished": (str,),
    "code": (dict,),
    "versions": (dict,),
    "device": (dict,),
}


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


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # pyright: ignore[reportGeneralTypeIssues]
    """OmegaConf's quotes, by libyaml where PyYAML has it: ten times as fast, a tenth of the start of a short run."""


_Dumper.add_representer(str, OmegaConfDumper.str_representer)


def write_yaml(path: Path, data: Any) -> None:
    """Write plain values as a YAML file, atomically, in the form of `OmegaConf.to_yaml`."""
    _write(path, yaml.dump(data, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def finished(folder: Path) -> Result | None:
    """The result in a run's directory; None if the run is not finished.

    Raises:
        DamagedError: `result.json` is missing, damaged, or was changed after the run had finished.
    """
    if not is_done(folder):
        return None
    path = folder / RESULT
    try:
        data = json.loads(read_checked(folder, RESULT))
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {reason(error)}") from None
    if (lacks := _lacks(data)) is not None:
        raise DamagedError(f"{path} is damaged: {lacks}")
    return Result(folder, data)


def _lacks(data: Any) -> str | None:
    """The first entry without which a result cannot be read; None for a whole result."""
    if not isinstance(data, dict):
        return "it holds no entries"
    for key, kinds in ENTRIES.items():
        if key not in data:
            return f"it has no '{key}'"
        if not isinstance(data[key], kinds) or isinstance(data[key], bool):
            return f"its '{key}' is {data[key]!r:.40}"
    metrics = data["metrics"]
    for protocol in get_args(Protocol):
        of = metrics.get(protocol)
        if not isinstance(of, dict) and (of is not None or protocol == "last"):
            return f"its metrics.{protocol} is {of!r:.40}"
        for name, value in (of or {}).items():
            if not isinstance(value, int | float | None):
                return f"its metrics.{protocol}.{name} is {value!r:.40}"
    teacher = data["teacher"]
    if teacher is not None and (wrong := [key for key in ("net", "sha256") if not isinstance(teacher.get(key), str)]):
        return f"its teacher has no '{wrong[0]}'"
    return None


def save_predictions(folder: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write the predictions atomically. Raises UserError if the folder cannot be written."""
    from safetensors.torch import save  # imports torch; its save_file hides errors of the disk

    try:
        with atomic_write(folder / PREDICTIONS) as file:
            file.write(save(dict(tensors)))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
