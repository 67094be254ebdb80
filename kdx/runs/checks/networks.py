"""Checks of one network before training: inputs, outputs, modes, gradients and state.

The dry run calls them with initial weights and two random inputs. kdx's own networks are trusted; timm's and
torchvision's are called once; a user's own are checked whole.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.seed import seeded
from kdx.core.spec import InputSpec
from kdx.core.task import Task
from kdx.core.tree import Tree, leaves, map_tree
from kdx.models.answers import chosen
from kdx.models.tap import plain

LIBRARIES = ("timm", "torchvision")
EXAMPLES = 2
SHOWN = 140  # most characters of another library's message


@dataclass(frozen=True)
class Data:
    """Facts of the data set that a network must fit.

    Attributes:
        name: Name of the data set.
        inputs: Facts of one input.
        task: Its task.
    """

    name: str
    inputs: InputSpec
    task: Task

    def batch(self) -> Tree:
        """Random inputs for the calls."""
        return random_inputs(self.inputs, EXAMPLES)


def random_inputs(inputs: InputSpec, size: int) -> Tree:
    """Normally distributed inputs; those that are integers are zeros."""
    return map_tree(lambda t: torch.randn_like(t) if t.is_floating_point() else t, inputs.fake(size, "cpu"))


def origin(net: nn.Module) -> str:
    """Name of the package that a network comes from."""
    return type(plain(net)).__module__.partition(".")[0]


def is_own(net: nn.Module) -> bool:
    """Whether a network is neither kdx's nor of a library whose networks are known."""
    return origin(net) not in ("kdx", *LIBRARIES)


def check_network(net: nn.Module, key: str, data: Data, batch: Tree, learns: bool) -> list[str]:
    """Check a network by calls in both modes.

    Args:
        net: The network with initial weights; the calls may change its state.
        key: Its key in the config, for messages.
        data: Facts of the data set.
        batch: Inputs from `data`.
        learns: Whether the run trains the network.

    Returns:
        A sentence for each property that a user should know and that is no error.

    Raises:
        UserError: A run with this network would fail or give wrong numbers.
    """
    if origin(net) == "kdx":
        return []
    whose = f"{key}: {type(plain(net)).__name__}"
    tensors = dict(chain(plain(net).named_parameters(), plain(net).named_buffers()))
    if away := [name for name, t in tensors.items() if t.is_meta]:
        raise UserError(f"{whose} has tensors on the meta device, such as '{away[0]}', which hold no values")
    before = _copied(net)
    evaluated, output = _call(net.eval(), batch, whose, data)
    if late := [name for name in plain(net).state_dict() if name not in before]:
        raise UserError(
            f"{whose} registers '{late[0]}' in its first forward, so that a fresh network cannot load its weights; "
            "create it in __init__, or use a lazy module such as torch.nn.LazyLinear"
        )
    _check_logits(evaluated, whose, data)
    notes = [f"{whose}: the logits are {how}; see `output` of kdx.models.own.tapped_model"] if (how := output) else []
    if not is_own(net):
        return notes
    changed = [name for name, value in _copied(net).items() if not same(value, before[name])]
    if changed and not learns:
        raise UserError(f"{whose} changes '{changed[0]}' in evaluation mode, and a teacher must stay as it is")
    if changed:
        notes.append(f"{whose} changes '{changed[0]}' in evaluation mode, so that evaluations change the run")
    notes += _noise(net, batch, evaluated, whose)
    if learns:
        notes += _check_learning(net, batch, evaluated, output, whose, data)
    return notes


def check_unshared(nets: Mapping[str, nn.Module]) -> None:
    """Raise UserError if two networks have a module or a parameter in common.

    Args:
        nets: The networks by key in the config.
    """
    seen: dict[int, str] = {}
    for key, net in nets.items():
        mine = {id(part): name for name, part in chain(plain(net).named_modules(), plain(net).named_parameters())}
        if shared := [identity for identity in mine if identity in seen]:
            part = mine[shared[0]]
            what = f"have '{part}' in common" if part else "are one module object"
            raise UserError(
                f"{seen[shared[0]]} and {key} {what}, so that training one changes the other; build a new module for "
                "each, or copy it (copy.deepcopy)"
            )
        seen |= dict.fromkeys(mine, key)


def _call(net: nn.Module, batch: Tree, whose: str, data: Data) -> tuple[Outputs, str | None]:
    """The network's outputs, and how the logits were found in them."""
    raw: list[object] = []
    scripted = isinstance(plain(net), torch.jit.ScriptModule)  # has no hooks
    handle = None if scripted else plain(net).register_forward_hook(lambda *given: raw.append(given[-1]))
    given = map_tree(Tensor.clone, batch)
    versions = [t._version for t in leaves(given)]
    try:
        with torch.set_grad_enabled(net.training):
            outputs = net(given)
    except Exception as error:
        mode = "training" if net.training else "evaluation"
        shapes = ", ".join(str(list(t.shape)) for t in leaves(batch))
        why = f"{short_reason(error)}{_size_of(net)}"
        raise UserError(f"{whose} fails in {mode} mode on inputs {shapes} of dataset={data.name}: {why}") from error
    finally:
        if handle is not None:
            handle.remove()
    if not isinstance(outputs, Outputs):
        raise UserError(f"{whose} returned {type(outputs).__name__}, though its forward is annotated -> Outputs")
    moved = [t._version for t in leaves(given)] != versions
    if moved or not all(same(a, b) for a, b in zip(leaves(given), leaves(batch), strict=True)):
        raise UserError(
            f"{whose} changes its input in place, which other networks and evaluators read after it; let its forward "
            "begin with x = x.clone(), or use operations that are not in place"
        )
    return outputs, chosen(raw[0]) if raw else None


def _size_of(net: nn.Module) -> str:
    """A remark on the input size that a network of timm is made for."""
    facts = getattr(plain(net), "pretrained_cfg", None)
    size = facts.get("input_size") if isinstance(facts, Mapping) else None
    return f"; it is made for inputs {list(size)}, so choose another network or size of images" if size else ""


def _check_logits(outputs: Outputs, whose: str, data: Data) -> None:
    logits, wanted = outputs.logits, data.task.num_outputs
    if not logits.is_floating_point():
        raise UserError(f"{whose} returned logits of type {str(logits.dtype).removeprefix('torch.')}, not real numbers")
    if logits.dim() != 2 or len(logits) != EXAMPLES:
        raise UserError(
            f"{whose} returned logits of shape {list(logits.shape)} for {EXAMPLES} inputs, not [{EXAMPLES}, {wanted}]"
        )
    if logits.shape[1] != wanted:
        raise UserError(
            f"{whose} has {logits.shape[1]} outputs, and dataset={data.name} needs {wanted}; build it with {wanted}"
        )


def _noise(net: nn.Module, batch: Tree, evaluated: Outputs, whose: str) -> Iterator[str]:
    """A note if the outputs in evaluation mode depend on random numbers."""
    with seeded(1, "another draw"), torch.no_grad():
        again = net.eval()(map_tree(Tensor.clone, batch))
    deaf = [name for name, m in plain(net).named_modules() if m.training and isinstance(m, _BatchNorm | _DropoutNd)]
    if deaf:
        yield f"{whose}: its module '{deaf[0]}' stays in training mode after eval()"
    if not same(again.logits, evaluated.logits):
        yield f"{whose} gives other outputs at a second call in evaluation mode, so that its measurements vary"


def _check_learning(
    net: nn.Module, batch: Tree, evaluated: Outputs, output: str | None, whose: str, data: Data
) -> Iterator[str]:
    """Checks of a network that the run trains."""
    parameters = list(net.parameters())
    if not parameters:
        raise UserError(f"{whose} has no parameters, so there is nothing to train")
    if not any(p.requires_grad for p in parameters):
        raise UserError(f"{whose} is frozen: none of its {len(parameters)} parameters requires gradients")
    trained, other = _call(net.train(), batch, whose, data)
    if not trained.logits.requires_grad:
        raise UserError(f"{whose} returns logits without gradients in training mode (detach or no_grad in its forward)")
    if trained.logits.shape != evaluated.logits.shape:
        shapes = [list(o.logits.shape) for o in (trained, evaluated)]
        raise UserError(f"{whose} returns logits {shapes[0]} in training mode and {shapes[1]} in evaluation mode")
    if other and other != output:
        yield f"{whose}: in training mode the logits are {other}; see `output` of kdx.models.own.tapped_model"


def short_reason(error: Exception) -> str:
    """An error of another library in one line."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else "no message"
    return f"{type(error).__name__}: {text if len(text) <= SHOWN else text[: SHOWN - 3] + '...'}"


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal; tensors by type, shape and values, where NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        a, b = a.detach(), b.detach()
        if a.dtype != b.dtype or a.shape != b.shape or a.layout != b.layout:
            return False
        return torch.equal(a, b) or torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[name]) for name, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    try:
        return bool(a == b)
    except Exception:  # arrays and objects that cannot be compared
        return a is b


def _copied(net: nn.Module) -> dict[str, Any]:
    return {name: t.clone() if isinstance(t, Tensor) else t for name, t in plain(net).state_dict().items()}
