"""Reads weights files: safetensors, and torch files that hold one or several state dicts."""

import os
import pickle
import re
import shlex
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from kdx.core.errors import UserError
from kdx.models.extra_state import SUFFIX
from kdx.models.layouts import choose, find_state, state_names

NAME = "::"  # between a file and the name of one of its state dicts; a shell and Hydra take it without quotes
GLOBAL = re.compile(r"GLOBAL (\S+) was not an allowed global")


class CheckpointError(UserError, ValueError):
    """A weights file that cannot be used; the message gives the reason."""


def split_name(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """A file, and the name of the state dict in it that is meant; empty if the path gives none.

    Example:
        >>> split_name("net.pt::state_dict_ema")
        (PosixPath('net.pt'), 'state_dict_ema')
    """
    file, mark, name = os.fspath(path).rpartition(NAME)
    return (Path(file), name) if mark and not os.path.exists(path) else (Path(path), "")


def read_state(path: str | os.PathLike[str], values: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict of a file, and its metadata or, under "layout", a sentence on other state dicts in it.

    Args:
        path: The file, or FILE::NAME for one of several state dicts; dots in NAME lead through nested mappings.
        values: Whether to read values; without, tensors are on the meta device.

    Raises:
        CheckpointError: The file is missing, damaged, of an unknown format, or holds no state dict of that name.
    """
    file, name = split_name(path)
    if not file.is_file():
        raise CheckpointError(f"weights file {file} not found")
    with open(file, "rb") as content:
        start = content.read(9)
    if not start:
        raise CheckpointError(f"{file} is damaged: it is empty")
    # a safetensors file starts with the length of its header, which may begin as an archive does
    has_header = start[8:] == b"{" and 8 + int.from_bytes(start[:8], "little") <= file.stat().st_size
    if not has_header and (start[:2] == b"PK" or start[:1] == b"\x80"):  # a zip archive, or a bare pickle
        return _read_torch(file, name, values)
    found = _read_safetensors(file, values)
    if name:
        raise CheckpointError(f"{path}: a safetensors file holds one state dict without a name; leave out {NAME}{name}")
    return found


def _read_safetensors(path: Path, values: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            read = {k: file.get_tensor(k) for k in names if values or k.endswith(SUFFIX)}
            shapes = {k: torch.empty(file.get_slice(k).get_shape(), device="meta") for k in names if k not in read}
            return read | shapes, dict(file.metadata() or {})
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise CheckpointError(f"{path} is damaged or cut short: {error}") from error
        raise CheckpointError(f"{path} is neither a safetensors file nor one that torch saved ({error})") from error


def _read_torch(path: Path, name: str, values: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    _refuse_other_archives(path)
    try:
        found = torch.load(path, map_location="cpu" if values else "meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_objects(path, str(error))) from error
    except Exception as error:  # torch raises many types for files cut short and archives of other kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is damaged, cut short, or no file of weights: {reason[:120]}") from error
    there = ", ".join(state_names(found)[:8])
    if name:
        found = choose(found, name)
    state, note = find_state(found, name)
    if state is None and name:
        raise CheckpointError(f"{path} has no state dict '{name}'; it has {there or 'none at all'}")
    if state is None:
        raise CheckpointError(f"{path} is a torch file without a state dict (a mapping of names to tensors)")
    return dict(state), {} if note is None else {"layout": f"{path}: {note}"}


def _refuse_other_archives(path: Path) -> None:
    """Raise CheckpointError for a zip archive that torch.save did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # a bare pickle, or an archive that torch reports as damaged
    if any("/code/" in name for name in names) and any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(f"{path} is a TorchScript archive, a network and no weights; {_command(path)}")
    if not any(name.endswith("/data.pkl") for name in names):
        more = f"{names[0][:60]!r}{f' and {len(names) - 1} more' if len(names) > 1 else ''}" if names else "nothing"
        raise CheckpointError(f"{path} is a zip archive without weights that torch saved; it holds {more}")


def _objects(path: Path, said: str) -> str:
    match = GLOBAL.search(said)
    if match is None:
        return f"{path} is damaged or holds Python objects other than tensors and plain values; {_command(path)}"
    return f"{path} holds {match[1][:60]} beside tensors, and loading that can run code; {_command(path)}"


def _command(path: Path) -> str:
    return f"if you trust it, `python -m kdx.models.convert {shlex.quote(str(path))}` writes its weights alone"
