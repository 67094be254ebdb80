"""Layouts of weights files: mappings around a state dict, and prefixes that wrappers add to its names."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

# raw weights before averaged ones, which a network in training has beside them
AROUND = ("model_state_dict", "state_dict", "model", "net", "network", "teacher", "student", "params", "weights")
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "student.", "teacher.", "timm_model.")
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel


def find_state(found: object) -> tuple[Mapping[str, Tensor] | None, str | None]:
    """The state dict in what a torch file holds, and a sentence if it holds several.

    Example:
        >>> import torch
        >>> weights = {"w": torch.ones(1)}
        >>> state, note = find_state({"epoch": 3, "state_dict": weights, "state_dict_ema": weights})
        >>> list(state), note
        (['w'], 'of state_dict and state_dict_ema, state_dict is used; save the other alone to use it')
    """
    note = None
    while isinstance(found, Mapping) and not _is_state(found):
        there = [key for key in (*AROUND, *AVERAGED) if isinstance(found.get(key), Mapping)]
        if not there:
            return None, note
        if len(there) > 1:
            note = f"of {' and '.join(there)}, {there[0]} is used; save the other alone to use it"
        found = found[there[0]]
    return (found, note) if isinstance(found, Mapping) else (None, note)


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
