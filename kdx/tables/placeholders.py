"""Overrides of a run without paths of the machine that it ran on.

Of an override that names a file, "{file:NAME:SHA256}" remains, and of one that names the directory of another run of
the manifest, "{run:LABEL}".
"""

import re
from collections.abc import Mapping
from pathlib import Path

from kdx.config.identity import left_out
from kdx.models.weight_files import split_name
from kdx.models.weights import sha256 as sha256_of
from kdx.runs.folder import STUDENT, is_done

SHORT = 16  # hex digits of a file's checksum in an override
RUN = re.compile(r"\{run:([^{}]+)\}")
FILE = re.compile(r"\{file:([^{}:]+):([0-9a-f]+)\}")
ABSOLUTE = re.compile(r"(?<![\w.}])[/~]/?[^\s,'\"{}\[\]=]+")  # a path in an override
GIVEN = ("checkpoint", "path")  # last parts of keys that name a file
# keys of the place where a run trains; others that are no part of the identity, such as eval_batch_size, move bits
PLACES = ("root", "index", "download", "verify", "device", "threads", "num_workers", "checkpoint_seconds")
OUTSIDE = ("paths", "logger", "fresh", "reuse")


def is_kept(override: str) -> bool:
    """Whether an override is part of the run rather than of the place where it ran."""
    key = override.lstrip("+~").split("=", 1)[0]
    return not (left_out(key) and (key.split(".")[0] in OUTSIDE or key.rpartition(".")[2] in PLACES))


def placeless(override: str, folders: Mapping[str, str], paths: Mapping[str, str]) -> str:
    """An override without paths of this machine.

    Args:
        override: Of a run.
        folders: Labels of the runs of the manifest, by directory.
        paths: The config's paths, which an override may interpolate.

    Example:
        >>> placeless("~evals.fidelity", {}, {})  # Hydra's sign for a key that is left out, no home directory
        '~evals.fidelity'
        >>> placeless("teacher.recipe=['a=/disk/b']", {}, {})
        "teacher.recipe=['a=b']"
    """
    if override.startswith("~"):
        return f"~{placeless(override[1:], folders, paths)}"
    for name, value in paths.items():
        override = override.replace(f"${{paths.{name}}}", value)
    for folder, label in folders.items():
        override = override.replace(folder, f"{{run:{label}}}")
    key, _, value = override.partition("=")
    if key.rpartition(".")[2] in GIVEN and (named := _named(value.strip("'\""))) is not None:
        return f"{key}='{named}'"
    parts = re.split(r"(\{run:[^{}]*\})", override)  # a label may have a slash
    return "".join(part if RUN.fullmatch(part) else ABSOLUTE.sub(_shortened, part) for part in parts)


def _shortened(match: re.Match[str]) -> str:
    return _named(match[0]) or Path(match[0]).name


def _named(value: str) -> str | None:
    """The placeholder of a file, or of a run's exported student; None where there is neither."""
    path, part = split_name(Path(value).expanduser())
    path = path / STUDENT if is_done(path) else path
    named = f"{{file:{path.name}:{sha256_of(path)[:SHORT]}}}" if path.is_file() else None
    return f"{named}::{part}" if named and part else named
