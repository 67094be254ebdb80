"""Weights files: atomic writes, strict reads, one-line errors."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdx.core.files import atomic_write
from kdx.models.extra_state import packed, unpacked
from kdx.models.layouts import is_reused_classifier, without_prefixes
from kdx.models.tap import plain
from kdx.models.weight_files import CheckpointError, read_state, split_name


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
        path: The file, or FILE::NAME for one of several state dicts in it.

    Returns:
        The file's metadata. For a torch file empty, or under "layout" a sentence if it holds several state dicts.

    Raises:
        CheckpointError: The file is missing, damaged, of an unknown format, or of another network.
    """
    state, metadata = read_state(path)
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
        path: The file, or FILE::NAME.
    """
    _matched(model, read_state(path, values=False)[0], str(path))


def _matched(model: nn.Module, given: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The whole state of a network with the given one. Raises CheckpointError if names or shapes differ."""
    net = plain(model)
    wanted = net.state_dict()
    state = without_prefixes(unpacked(given), wanted)
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in wanted]
    if missing and is_reused_classifier(state):
        raise CheckpointError(
            f"{source} holds parts of two networks: SimKD's student with its projector (net.*, projector.*) and the "
            f"teacher's classifier (head.*); this {type(net).__name__} is one network, so give another method's run"
        )
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
    """The SHA-256 of a file's bytes, in hexadecimal; of FILE::NAME that of the file's and the name together."""
    place, name = split_name(path)
    with open(place, "rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{whole}::{name}".encode()).hexdigest() if name else whole


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of all files in a folder, in hexadecimal."""
    if path.is_file():
        return sha256(path)
    lines = [f"{sha256(p)} {p.relative_to(path).as_posix()}" for p in sorted(path.rglob("*")) if p.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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
