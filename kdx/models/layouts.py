"""Layouts of weights files: mappings around a state dict, and prefixes that wrappers add to its names."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor

# raw weights before averaged ones, which a network in training has beside them
AROUND = ("model_state_dict", "state_dict", "model", "net", "network", "teacher", "student", "params", "weights")
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "student.", "teacher.", "timm_model.")
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
REUSED = ("net.", "projector.", "head.")  # a student with another network's classifier, as SimKD exports it
DEPTH = 4  # mappings around a state dict
OPTIMIZER = "optim"  # begins the names of states that are no network's


def find_state(found: object, name: str) -> tuple[Mapping[str, Tensor] | None, str | None]:
    """The state dict in a part of a torch file, and a sentence if the part holds several.

    Args:
        found: The part.
        name: Under which `choose` finds it; empty for the whole file.

    Example:
        >>> import torch
        >>> weights = {"w": torch.ones(1)}
        >>> state, note = find_state({"epoch": 3, "state_dict": weights, "state_dict_ema": weights}, "")
        >>> list(state), note
        (['w'], 'of state_dict and state_dict_ema, state_dict is used; FILE::state_dict_ema uses another')
    """
    note, way = None, [name] if name else []
    while isinstance(found, Mapping) and not _is_state(found):
        there = [key for key in (*AROUND, *AVERAGED) if isinstance(found.get(key), Mapping)]
        if not there:
            return None, note
        if others := [k for k in found if k != there[0] and not str(k).startswith(OPTIMIZER) and state_names(found[k])]:
            names = " and ".join([there[0], *map(str, others[:3])])
            note = f"of {names}, {there[0]} is used; FILE::{'.'.join([*way, str(others[0])])} uses another"
        way.append(there[0])
        found = found[there[0]]
    return (found, note) if isinstance(found, Mapping) else (None, note)


def choose(found: object, name: str) -> object:
    """The content of a torch file under a name, whose dots may lead through nested mappings; None if there is none.

    Example:
        >>> choose({"model": {"ema": 1}, "model.ema": 2}, "model.ema"), choose({"model": {"ema": 1}}, "model.ema")
        (2, 1)
    """
    if not isinstance(found, Mapping) or name in found:
        return found[name] if isinstance(found, Mapping) else None
    heads = [name[:i] for i, letter in enumerate(name) if letter == "."]
    return next((got for h in heads if h in found and (got := choose(found[h], name[len(h) + 1 :])) is not None), None)


def state_names(found: object) -> list[str]:
    """Names under which `choose` finds state dicts in what a torch file holds; "" for one without a name.

    Example:
        >>> import torch
        >>> state_names({"epoch": 3, "model": {"raw": {"w": torch.ones(1)}, "ema": {"w": torch.ones(1)}}})
        ['model.raw', 'model.ema']
    """
    return list(_state_names(found, (), DEPTH))


def _state_names(found: object, way: tuple[str, ...], depth: int) -> Iterator[str]:
    if isinstance(found, Mapping) and depth >= 0:
        if _is_state(found):
            yield ".".join(way)
            return
        for key, value in found.items():
            if isinstance(key, str) and not key.startswith(OPTIMIZER):
                yield from _state_names(value, (*way, key), depth - 1)


def is_reused_classifier(state: Collection[str]) -> bool:
    """Whether a state dict is a student's with another network's classifier, as SimKD exports it.

    Example:
        >>> is_reused_classifier(["net.conv.weight", "projector.0.weight", "head.weight"])
        True
    """
    found = {prefix for name in state for prefix in REUSED if name.startswith(prefix)}
    return found == set(REUSED) and all(name.startswith(REUSED) for name in state)


def without_prefixes(state: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """A state dict without the prefixes that all its names share, as long as none of its names is wanted.

    Example:
        >>> without_prefixes({"module.net.fc.weight": 1, "module.net.fc.bias": 2}, ["fc.weight", "fc.bias"])
        {'fc.weight': 1, 'fc.bias': 2}
    """
    names = [name for name in state if name != COUNTER]
    found = {name: state[name] for name in names} if COUNTER not in wanted else dict(state)
    while found and not any(name in wanted for name in found):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found if any(name in wanted for name in found) else dict(state)


def _is_state(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items())
