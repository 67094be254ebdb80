"""Features of any network, captured by forward hooks without editing it."""

import difflib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.models.teachers.frozen import Frozen

_ANSWER = "<output of the head>"


class _Tape:
    """Storage for the hooks of one network; empty and closed between calls, so that it keeps no tensor alive."""

    def __init__(self) -> None:
        self.open = False
        self.found: dict[str, Tensor] = {}
        self.versions: dict[str, int] = {}
        self.copied: set[str] = set()

    def write(self, role: str, value: object) -> None:
        if not self.open or not isinstance(value, Tensor):
            return
        value = value.clone() if role in self.copied else value
        self.found[role] = value
        self.versions[role] = _version(value)

    def changed(self) -> list[str]:
        return [role for role, value in self.found.items() if _version(value) != self.versions[role]]

    def clear(self) -> None:
        self.open, self.found, self.versions = False, {}, {}


def _equal(answer: Tensor, logits: Tensor) -> bool:
    """Whether a head's output is the network's, up to trailing axes of length 1."""
    return answer.numel() == logits.numel() and torch.equal(answer.detach().reshape(logits.shape), logits.detach())


def _version(x: Tensor) -> int:
    """Number of in-place changes of a tensor; always 0 for inference tensors, which do not count them."""
    return 0 if x.is_inference() or torch.compiler.is_compiling() else x._version


class _OutputHook:
    # a class, not a closure, so that a network with hooks can be copied and pickled
    def __init__(self, tape: _Tape, role: str):
        self.tape, self.role = tape, role

    def __call__(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        self.tape.write(self.role, output)


class _InputHook(_OutputHook):
    def __call__(self, module: nn.Module, args: tuple[object, ...]) -> None:  # pyright: ignore
        self.tape.write(self.role, args[0] if args else None)


class Tapped(nn.Module):
    """Wrap a classifier so that it returns `Outputs`, with features by role.

    `pooled` is the input of the classifier `head`, unless `taps` defines it otherwise; maps and tokens at that point
    are averaged to [B, D]. The other features are the unchanged outputs of the tapped modules: maps [B, D, H, W] for
    most convolutional networks, [B, H, W, D] for some (Swin), tokens [B, N, D] for vision transformers, class token
    included. A module that runs twice in a forward pass gives its last output. Weights of the plain network:
    `tapped.net.state_dict()`.

    Some networks change a tensor in place after the module that made it. A feature changed this way is copied from
    then on. The call that detects the change is repeated in evaluation mode, and raises in training mode.

    Args:
        net: The network; its forward returns logits [B, C]. It is not edited; its hooks do nothing unless it is
            called through this wrapper.
        taps: Module path by role, such as `{"stage1": "layer1"}`.
        head: Module path of the final classifier; None for a network without one, which has no `pooled`.
        strict: Whether to raise if a tapped module does not run or does not return a single tensor; else its role is
            left out.
        guessed: Whether `head` is a guess. The first call then compares the head's output with the network's, and
            drops `head` and `pooled` if they differ.

    Raises:
        ValueError: The network has no module at a path; the message names similar paths.
    """

    def __init__(self, net: nn.Module, taps: Mapping[str, str], head: str | None, strict: bool, guessed: bool = False):
        super().__init__()
        modules = dict(net.named_modules())
        for path in (*taps.values(), *(() if head is None else (head,))):
            if path not in modules:
                close = difflib.get_close_matches(path, modules, n=5, cutoff=0.4) or list(modules)[1:6]
                raise ValueError(f"{type(net).__name__} has no module '{path}'; similar paths: {', '.join(close)}")
        self.net = net
        self.taps = dict(taps)
        self.head_path = head
        self.strict = strict
        self._tape = _Tape()
        for role, path in self.taps.items():
            modules[path].register_forward_hook(_OutputHook(self._tape, role))
        if head is not None and "pooled" not in self.taps:
            modules[head].register_forward_pre_hook(_InputHook(self._tape, "pooled"))
        self._guessed = guessed and head is not None
        if head is not None and guessed:
            modules[head].register_forward_hook(_OutputHook(self._tape, _ANSWER))

    @property
    def head(self) -> nn.Module:
        """The final classifier: a linear layer, or a 1x1 convolution in a few networks."""
        if self.head_path is None:
            raise AttributeError(f"{type(self.net).__name__} has no final classifier that is a separate module")
        return self.net.get_submodule(self.head_path)

    def forward(self, x: Tensor) -> Outputs:
        logits, found, changed = self._run(x)
        if changed:
            self._tape.copied.update(changed)
            if self.net.training:
                raise ValueError(
                    f"the network changes the feature {', '.join(changed)} in place: run it once in evaluation mode "
                    "(kdx.models.probe does), after which the feature is copied"
                )
            logits, found, _ = self._run(x)
        answer = found.pop(_ANSWER, None)
        if self._guessed:
            self._guessed = False
            if answer is None or not _equal(answer, logits):
                self.head_path = None
        if self.head_path is None and "pooled" not in self.taps:
            found.pop("pooled", None)
        silent = [role for role in self.taps if role not in found]
        if silent and self.strict:
            raise ValueError(
                f"module '{self.taps[silent[0]]}', tapped for '{silent[0]}', did not run or returned no single tensor"
            )
        if "pooled" in found and "pooled" not in self.taps:
            found["pooled"] = self._vector(found["pooled"])
        return Outputs(logits, found)

    def _run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor], list[str]]:
        tape = self._tape
        tape.open = True
        try:
            logits = self.net(x)
            found, changed = tape.found, tape.changed()
        finally:
            tape.clear()
        if not isinstance(logits, Tensor):
            hint = "; annotate its forward as -> Outputs" if isinstance(logits, Outputs) else ""
            raise ValueError(
                f"{type(self.net).__name__} returned {type(logits).__name__}, not a tensor of logits{hint}"
            )
        return logits, found, changed

    def _vector(self, x: Tensor) -> Tensor:
        if isinstance(self.head, nn.Conv2d):
            return x.mean((2, 3))
        return x.flatten(1, -2).mean(1) if x.dim() > 2 else x


def plain(model: nn.Module) -> nn.Module:
    """The network without this package's wrappers (`Tapped`, `Frozen`), as exported."""
    while isinstance(model, Tapped | Frozen):
        model = model.net
    return model
