"""Records where in a network given tensors appear."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.models.features.layout import Layout, Source, entries, fit

MAPS = 48
"""Number of the latest maps that are kept; the pooling reads one of them."""


@dataclass(frozen=True)
class Hit:
    """A target found at a source; the source's module had been called `call` times by then."""

    source: Source
    layout: Layout
    call: int


@dataclass(frozen=True)
class Vectors:
    """A call of a module that maps vectors to vectors, or maps to vectors (a pooling)."""

    path: str
    leaf: bool
    given: Tensor
    result: Tensor


@dataclass
class Recording:
    """The record of one forward pass.

    Attributes:
        hits: Where each target appeared, in the order of time.
        vectors: Calls that return a vector per example.
        maps: The latest tensors with positions, and where they appeared.
        outputs: Outputs of the requested modules, by path.
        inputs: First inputs of the requested modules, by path.
        calls: Number of calls by path.
    """

    hits: dict[str, list[Hit]] = field(default_factory=dict)
    vectors: list[Vectors] = field(default_factory=list)
    maps: deque[tuple[Source, Tensor]] = field(default_factory=lambda: deque(maxlen=MAPS))
    outputs: dict[str, object] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def source(self, target: str) -> tuple[Source, Layout] | None:
        """The best source of a target: the outermost module whose output it is, from the first one on.

        An input serves where no output does, and a call is of use if it is the module's last.
        """
        hits = [h for h in self.hits.get(target, ()) if h.call == self.calls[h.source.path]]
        for side in ("output", "input"):
            there = [h for h in hits if h.source.of == side]
            if there:
                first = there[0]
                above = [h for h in there if first.source.path.startswith(f"{h.source.path}.")]
                best = min(above, key=lambda h: len(h.source.path), default=first) if side == "output" else first
                return best.source, best.layout
        return None


def record(
    net: nn.Module, x: Tensor, targets: Mapping[str, Tensor], outputs: Sequence[str] = (), heads: Sequence[str] = ()
) -> tuple[object, Recording]:
    """Run a network and record.

    Args:
        net: The network.
        x: Its input.
        targets: Maps [B, C, H, W] to look for, by name.
        outputs: Paths of modules whose outputs are kept.
        heads: Paths of modules whose first inputs are kept.

    Returns:
        The network's output, and the recording.
    """
    found = Recording()
    handles = []
    for path, module in net.named_modules():
        if path and not isinstance(module, torch.jit.ScriptModule):  # which has no hooks
            pre, post = _hooks(path, not any(module.children()), targets, found, path in outputs, path in heads)
            handles += [module.register_forward_pre_hook(pre), module.register_forward_hook(post)]
    try:
        result = net(x)
    except Exception as error:
        error.recording = found  # pyright: ignore[reportAttributeAccessIssue]
        raise
    finally:
        for handle in handles:
            handle.remove()
    return result, found


def _hooks(
    path: str, leaf: bool, targets: Mapping[str, Tensor], found: Recording, output: bool, head: bool
) -> tuple[Callable[..., None], Callable[..., None]]:
    open_inputs: list[Tensor | None] = []

    def look(value: object, side: Literal["input", "output"]) -> None:
        for index, x in entries(value):
            for name, target in targets.items():
                if (layout := fit(x, target)) is not None:
                    source = Source(path, side, index)
                    found.hits.setdefault(name, []).append(Hit(source, layout, found.calls[path]))

    def pre(module: nn.Module, args: tuple[object, ...]) -> None:
        found.calls[path] = found.calls.get(path, 0) + 1
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if head and first is not None:
            found.inputs[path] = first.detach().clone()
        if leaf and first is not None and first.dim() > 2 and not is_vector(first):
            found.maps.append((Source(path, "input", (0,)), first.detach().clone()))
        open_inputs.append(first.detach().clone() if first is not None and (is_vector(first) or leaf) else first)
        look(args, "input")

    def post(module: nn.Module, args: tuple[object, ...], result: object) -> None:
        given = open_inputs.pop() if open_inputs else None
        if output:
            found.outputs[path] = _copied(result)
        if isinstance(result, Tensor) and given is not None and is_vector(result):
            found.vectors.append(Vectors(path, leaf, given, result.detach().clone()))
        elif isinstance(result, Tensor) and result.dim() > 2:
            found.maps.append((Source(path, "output"), result.detach().clone()))
        look(result, "output")

    return pre, post


def _copied(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return tuple(_copied(item) for item in value) if isinstance(value, tuple | list) else value


def is_vector(x: Tensor) -> bool:
    """Whether a tensor is one vector per example: [B, C], [B, C, 1, 1] or [B, 1, 1, C]."""
    return x.dim() == 2 or (x.dim() == 4 and (x.shape[2:].numel() == 1 or x.shape[1:3].numel() == 1))
