"""Weights files: atomic writes, strict reads, one-line errors."""

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdx.core.errors import UserError
from kdx.core.files import atomic_write
from kdx.models.extra_state import SUFFIX, packed, unpacked
from kdx.models.layouts import find_state, without_prefixes
from kdx.models.tap import plain


class CheckpointError(UserError, ValueError):
    """A weights file that cannot be used; the message gives the reason."""


def save_weights(path: str | os.PathLike[str], model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a network's state dict to a safetensors file, atomically.

    The plain network is written, without this package's wrappers, so that other code can load it.

    Args:
        path: The file; its folder is created if missing.
        model: The network.
        metadata: Strings to store beside the weights, by name.

    Raises:
        CheckpointError: The network has state that the file cannot hold.
    """
    path = Path(path)
    content = as_bytes(model, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(content)


def as_bytes(model: nn.Module, metadata: Mapping[str, str]) -> bytes:
    """The content of the file that `save_weights` writes."""
    from safetensors.torch import save

    try:
        state = packed(plain(model).state_dict())
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    # cloned: safetensors refuses tied weights, and two copies load just as well
    return save({k: v.detach().cpu().clone().contiguous() for k, v in state.items()}, dict(metadata))


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> dict[str, str]:
    """Load a network's weights strictly: every name and shape must match.

    Reads safetensors, and torch files that hold a state dict, also one in other mappings or with the prefixes that
    wrappers add, see `kdx.models.layouts`. Torch files are read with `weights_only=True`, so that a file cannot run
    code. Only `num_batches_tracked` may be missing, since old files lack it.

    Args:
        model: The network, changed in place; unchanged if the file does not match.
        path: The file.

    Returns:
        The file's metadata. For a torch file empty, or under "layout" a sentence if it holds several state dicts.

    Raises:
        CheckpointError: The file is missing, damaged, of an unknown format, or of another network.
    """
    path = Path(path)
    state, metadata = _read(path)
    load_state(model, state, str(path))
    return metadata


def load_bytes(model: nn.Module, content: bytes, source: str) -> None:
    """Load what `as_bytes` gave, as strictly as `load_weights`; messages name `source`."""
    from safetensors.torch import load

    load_state(model, load(content), source)


def load_state(model: nn.Module, given: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict as strictly as `load_weights`; messages name `source`."""
    net, whole = plain(model), _matched(model, given, source)
    net.load_state_dict(whole)


def check_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Raise as `load_weights` does if a file's names or shapes are not the network's; the values are not read.

    Args:
        model: The network; its parameters may be on the meta device.
        path: The file.
    """
    _matched(model, _read(Path(path), values=False)[0], str(path))


def _matched(model: nn.Module, given: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The whole state of a network with the given one. Raises CheckpointError if names or shapes differ."""
    net = plain(model)
    wanted = net.state_dict()
    state = without_prefixes(unpacked(given), wanted)
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in wanted]
    if missing or unexpected:
        parts = [
            f"{len(names)} of its names are {word} (such as '{names[0]}')"
            for names, word in ((missing, "missing"), (unexpected, "unexpected"))
            if names
        ]
        raise CheckpointError(
            f"{source} is a checkpoint of another network than this {type(net).__name__} with {len(wanted)} "
            f"tensors: {' and '.join(parts)}"
        )
    wrong = [k for k in wanted if k in state and not _fits(state[k], wanted[k])]
    if wrong:
        raise CheckpointError(_shape_sentence(source, wrong, state, wanted, _head_names(model)))
    return {**wanted, **state}


def _fits(found: Any, wanted: Any) -> bool:
    """Whether shapes are equal; lazy parameters and extra state have none."""
    both = isinstance(found, Tensor) and isinstance(wanted, Tensor)
    return is_lazy(wanted) or not both or found.shape == wanted.shape


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of all files in a folder, in hexadecimal."""
    if path.is_file():
        return sha256(path)
    lines = [f"{sha256(p)} {p.relative_to(path).as_posix()}" for p in sorted(path.rglob("*")) if p.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(path: Path, values: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"weights file {path} not found")
    with open(path, "rb") as file:
        start = file.read(9)
    if not start:
        raise CheckpointError(f"{path} is damaged: it is empty")
    # a safetensors file starts with the length of its header, which may begin as an archive does
    has_header = start[8:] == b"{" and 8 + int.from_bytes(start[:8], "little") <= path.stat().st_size
    if not has_header and (start[:2] == b"PK" or start[:1] == b"\x80"):  # a zip archive, or a bare pickle
        return _read_torch(path, values)
    return _read_safetensors(path, values)


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


def _read_torch(path: Path, values: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        found = torch.load(path, map_location="cpu" if values else "meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds Python objects other than tensors and plain values; loading it could run "
            "code, so save its state dict alone"
        ) from error
    except Exception as error:  # torch raises many types for files cut short and archives of other kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is damaged, cut short, or no file of weights: {reason[:120]}") from error
    state, note = find_state(found)
    if state is None:
        raise CheckpointError(f"{path} is a torch file without a state dict (a mapping of names to tensors)")
    return dict(state), {} if note is None else {"layout": f"{path}: {note}"}


def _head_names(model: nn.Module) -> tuple[str, ...]:
    head = getattr(model, "head", None)
    return tuple(f"{name}." for name, m in plain(model).named_modules() if m is head)


def _shape_sentence(
    source: str, wrong: list[str], state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], head: tuple[str, ...]
) -> str:
    def sides(k: str) -> str:
        return f"'{k}' is {tuple(state[k].shape)} in the file and {tuple(wanted[k].shape)} in the network"

    k = wrong[0]
    if head and all(name.startswith(head) for name in wrong):
        theirs, ours = state[k].shape[0], wanted[k].shape[0]
        if theirs != ours:
            return f"{source} does not fit: the checkpoint has {theirs} classes, the network {ours} ({sides(k)})"
    more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
    return f"{source} does not fit: {sides(k)}{more}"
