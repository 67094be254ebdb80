"""Batch norm folding: merge batch norms into the preceding convolutions."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from kdx.core.derived import stored
from kdx.core.tree import Tree

# exact types only: subclasses may do more, such as timm's norms with an activation inside
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Uses(TorchFunctionMode):
    """Counts the operations that read each tensor. It keeps all results alive, so that no id is reused."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self.kept: list[Any] = []

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.kept.append(out)
        if any(isinstance(t, Tensor) for t in tree_leaves(out)):  # reading a shape does not count
            self.count.update(id(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        return out


@torch.no_grad()
def fold(net: nn.Module, inputs: Tree) -> nn.Module:
    """Copy a network in evaluation mode with its batch norms folded into the preceding convolutions.

    A pair is folded if a run shows that only the norm reads the convolution's output and that this output is not a
    feature. So all features keep their values, up to rounding. Works on any network, traceable or not.

    Args:
        net: A network that returns `Outputs` or a tensor.
        inputs: A few examples for the run, [B, ...].
    """
    net = copy.deepcopy(net).eval()
    net(inputs)  # a wrapped network finds its features before anything is replaced
    for conv, norm in _pairs(net, inputs):
        old, new = net.get_submodule(norm), nn.Identity().eval()
        _merge(net.get_submodule(conv), old)
        new._forward_hooks.update(old._forward_hooks)  # features that are captured there
        new._forward_pre_hooks.update(old._forward_pre_hooks)
        net.set_submodule(norm, new)
    return net


def _pairs(net: nn.Module, inputs: Tree) -> list[tuple[str, str]]:
    """Paths of (convolution, norm) pairs that can be folded."""
    made: dict[str, Tensor] = {}  # output of each convolution
    read: dict[str, Tensor] = {}  # input of each norm
    runs: Counter[str] = Counter()
    uses = _Uses()

    def note(path: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            runs[path] += 1
            if type(module) in _CONVS:
                made[path] = output
            else:
                read[path] = args[0]

        return module.register_forward_hook(hook)

    paths = {path: m for path, m in net.named_modules() if type(m) in _CONVS or (type(m) in _NORMS and _is_fixed(m))}
    handles = [note(path, m) for path, m in paths.items()]
    try:
        with uses:
            outputs = net(inputs)
    finally:
        for handle in handles:
            handle.remove()
    shown = {id(t) for t in (stored(outputs.features).values() if hasattr(outputs, "features") else ())}
    makers = {id(t): path for path, t in made.items()}
    found = []
    for norm, t in read.items():
        conv = makers.get(id(t))
        alone = uses.count[id(t)] == 1 and id(t) not in shown
        if conv is not None and alone and runs[conv] == runs[norm] == 1:
            found.append((conv, norm))
    return found


def _is_fixed(norm: nn.Module) -> bool:
    return norm.running_mean is not None and norm.running_var is not None


def _merge(conv: Any, norm: Any) -> None:
    # in float64, so that only the result is rounded
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias.double()
    weight = conv.weight.double() * scale.view(-1, *(1,) * (conv.weight.dim() - 1))
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
