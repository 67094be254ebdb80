"""Checks that a network's state travels: by an export into a fresh network, and by a checkpoint into a resumed run."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.seed import seeded
from kdx.core.tree import Tree, map_tree
from kdx.models.tap import plain
from kdx.models.weights import CheckpointError, as_bytes, load_bytes
from kdx.runs.checks.networks import check_unshared, same, short_reason

STEP = 0.01  # standard deviation of the change of parameters that stands for a training step
PLAIN = (bool, int, float, complex, str, bytes, Tensor, np.ndarray, np.generic, list, tuple, dict, set, type(None))
# of nn.Module itself
OWN = frozenset(vars(nn.Module())) | {"training"}


def check_travel(net: nn.Module, key: str, batch: Tree, learns: bool, build: Callable[[], nn.Module]) -> list[str]:
    """Change a network as training does, load its export into a fresh one, and compare outputs in both modes.

    Args:
        net: The network; its weights are changed.
        key: Its key in the config, for messages.
        batch: Inputs.
        learns: Whether the run trains the network; else it is loaded alone.
        build: Builds a fresh network with other initial weights.

    Returns:
        A sentence for each change of state that is lost and that the outputs do not show.

    Raises:
        UserError: The export does not load, or the fresh network's outputs differ.
    """
    whose = f"{key}: {type(plain(net)).__name__}"
    fresh = build()
    check_unshared({key: net, f"a second build of {key}": fresh})
    before = dict(_strays(net))
    if learns:
        net.train()
        with torch.no_grad(), seeded(0, "step"):
            net(map_tree(Tensor.clone, batch))
            for p in net.parameters():
                if p.requires_grad:
                    p.add_(STEP * torch.randn_like(p))
    moved = [name for name, value in _strays(net) if _is_state(name, value) and not same(value, before.get(name))]
    try:
        load_bytes(fresh, as_bytes(net, {}), "its export")
    except CheckpointError as error:
        raise UserError(f"{whose} cannot be exported and loaded again: {error}") from error
    except Exception as error:
        raise UserError(f"{whose} cannot be exported and loaded again: {short_reason(error)}") from error
    for training in (False, True) if learns else (False,):
        if not _close(*(_logits(n, batch, training) for n in (net, fresh))):
            way = "a resumed run would continue" if training else "its export gives other outputs"
            raise UserError(f"{whose}: {way}, since {_reason(net, fresh)}".replace("continue,", "continue otherwise,"))
    return [
        f"{whose} changes {name} in training, which neither its export nor a checkpoint holds; register_buffer keeps it"
        for name in moved[:1]
    ]


def check_export(delivered: nn.Module, fresh: nn.Module, batch: Tree, file: str) -> None:
    """Raise UserError unless a fresh network that loaded an export gives the outputs of the trained one.

    Args:
        delivered: The trained network.
        fresh: The network that loaded the export, on the same device.
        batch: Inputs, on the same device.
        file: The file, for the message.
    """
    if not _close(_logits(delivered, batch, False), _logits(fresh, batch, False)):
        raise UserError(f"{file} loaded into a fresh network gives other outputs, since {_reason(delivered, fresh)}")


def _logits(net: nn.Module, batch: Tree, training: bool) -> Tensor:
    net.train(training)
    with torch.no_grad(), seeded(0, "outputs"):
        return net(map_tree(Tensor.clone, batch)).logits


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether logits are equal up to rounding."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = a.double(), b.double()
    scale = 1e-3 * max(1e-6, float(a.nan_to_num(0.0, 0.0, 0.0).abs().max()))
    return torch.allclose(a, b, rtol=1e-3, atol=scale, equal_nan=True)


def _reason(net: nn.Module, fresh: nn.Module) -> str:
    """Why two networks with the same state dict differ: the state outside it, by name."""
    theirs = dict(_strays(fresh))
    lost = [name for name, value in _strays(net) if not same(value, theirs.get(name))]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return f"{lost[0]}{more} is no part of its state_dict; register_buffer(name, tensor) keeps it"
    kept = plain(fresh).state_dict()
    wrong = [name for name, value in plain(net).state_dict().items() if not same(value, kept.get(name))]
    return f"'{wrong[0]}' is not loaded as it was saved" if wrong else "its outputs depend on more than its state_dict"


def _strays(net: nn.Module) -> Iterator[tuple[str, Any]]:
    """The state of a network outside its state dict: buffers that are not persistent, and plain attributes."""
    for path, module in plain(net).named_modules():
        prefix = f"{path}." if path else ""
        for name in sorted(module._non_persistent_buffers_set):
            value = module._buffers.get(name)
            yield f"the buffer '{prefix}{name}' (persistent=False)", None if value is None else value.detach().clone()
        for name, value in () if isinstance(module, torch.jit.ScriptModule) else vars(module).items():
            if name not in OWN and isinstance(value, PLAIN):
                yield f"the attribute '{prefix}{name}'", _frozen(value)


def _frozen(value: Any) -> Any:
    """A copy that later changes do not reach."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple | dict | set | np.ndarray):
        try:
            return copy.deepcopy(value)
        except Exception:  # a nest with tensors in a graph
            return value
    return value


def _is_state(name: str, value: Any) -> bool:
    """Whether a value looks like state: a buffer or a number; tensors in attributes are often for display alone."""
    return name.startswith("the buffer") or (
        isinstance(value, int | float | np.generic) and not isinstance(value, bool)
    )
