"""Features of any network, captured by forward hooks without editing it."""

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdx.core.notice import notice
from kdx.core.outputs import FeatureSpec, Outputs
from kdx.models.answers import Key, find_logits
from kdx.models.features.classifier import classifier
from kdx.models.features.ends import Plan
from kdx.models.features.layout import Source, entry, parse
from kdx.models.features.plan import library_plan, module_plan
from kdx.models.features.quiet import quiet, random_input
from kdx.models.teachers.frozen import Frozen


class _Tape:
    """Storage for the hooks of one network; empty and closed between calls, so that it keeps no tensor alive."""

    def __init__(self) -> None:
        self.open = False
        self.wanted: dict[tuple[str, str], list[Source]] = {}
        self.found: dict[Source, Tensor] = {}
        self.versions: dict[Source, int] = {}
        self.copied: set[Source] = set()

    def write(self, key: tuple[str, str], value: object) -> None:
        if not self.open:
            return
        for source in self.wanted[key]:
            x = entry(value, source.index)
            if isinstance(x, Tensor):
                x = x.clone() if source in self.copied else x
                self.found[source] = x
                self.versions[source] = _version(x)

    def changed(self) -> set[Source]:
        return {source for source, value in self.found.items() if _version(value) != self.versions[source]}

    def clear(self) -> None:
        self.open, self.found, self.versions = False, {}, {}


def _version(x: Tensor) -> int:
    """Number of in-place changes of a tensor; always 0 for inference tensors, which do not count them."""
    return 0 if x.is_inference() or torch.compiler.is_compiling() else x._version


class _OutputHook:
    # a class, not a closure, so that a network with hooks can be copied and pickled
    def __init__(self, tape: _Tape, key: tuple[str, str]):
        self.tape, self.key = tape, key

    def __call__(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        self.tape.write(self.key, output)


class _InputHook(_OutputHook):
    def __call__(self, module: nn.Module, args: tuple[object, ...]) -> None:  # pyright: ignore
        self.tape.write(self.key, args)


class Tapped(nn.Module):
    """Wrap a classifier so that it returns `Outputs`, with features by role.

    Features reach a loss in one layout, whatever the network's own: maps and tokens that form a grid as [B, C, H, W],
    other tokens as [B, L, C] without class token, vectors as [B, C]. Where they are is found at the first call, by
    value, on a random input (`kdx.models.features.plan`); each further call costs views alone.

    Roles: `stage0` ... `stageN`; `last`, the map that enters the pooling, where it is not the last stage; `pooled`,
    the vector before the classifier; `pre_logits`, what the classifier reads, where that is something else. A module
    that runs twice in a forward pass gives its last output. Weights of the plain network: `tapped.net.state_dict()`.

    Some networks change a tensor in place after the module that made it. A feature changed this way is copied from
    then on. A call that detects the change is repeated in evaluation mode, and raises in training mode.

    Args:
        net: The network; its forward returns logits [B, C]. It is not edited; its hooks do nothing unless it is
            called through this wrapper.
        taps: Module path by role, such as `{"stage1": "layer1"}`, with the axes of the output behind a colon where
            they cannot be found: `{"stage1": "layer1:bhwc"}`. None takes the intermediate features that timm names.
        head: Module path of the final classifier, or paths of several whose logits are averaged; None for a network
            without one, which has no `pooled`.
        strict: Whether to raise if a tapped module does not run or returns no tensor; else its role is left out.
        guessed: Whether `head` is a guess. If its output is not the network's, there is no `head` and no `pooled`.
        output: Where the logits are in the network's output, see `find_logits`.

    Raises:
        ValueError: The network has no module at a path; the message names similar paths.
    """

    def __init__(
        self,
        net: nn.Module,
        taps: Mapping[str, str] | None,
        head: str | Sequence[str] | None,
        strict: bool,
        guessed: bool = False,
        output: Key = None,
    ):
        super().__init__()
        heads = [] if head is None else [head] if isinstance(head, str) else list(head)
        modules = dict(net.named_modules())
        for path in (*(parse(text)[0] for text in (taps or {}).values()), *heads):
            if path not in modules:
                close = difflib.get_close_matches(path, modules, n=5, cutoff=0.4) or list(modules)[1:6]
                raise ValueError(f"{type(net).__name__} has no module '{path}'; similar paths: {', '.join(close)}")
        self.net = net
        self.taps = None if taps is None else dict(taps)
        self.heads = heads
        self.strict, self.guessed, self.output = strict, guessed, output
        self._tape = _Tape()
        self._plans: dict[tuple[int, ...], Plan] = {}

    @property
    def head(self) -> nn.Module:
        """The final classifier: a linear layer, or a 1x1 convolution in a few networks."""
        if not self.heads:
            raise AttributeError(f"{type(self.net).__name__} has no final classifier that is a separate module")
        return self.net.get_submodule(self.heads[0])

    def classifier_for(self, role: str, channels: int) -> nn.Module | None:
        """The part of the network that turns a feature into logits, checked by value; None if there is none.

        Args:
            role: Role of the feature, such as "pooled" or "last".
            channels: Its channels.
        """
        plan = next(iter(self._plans.values()), None)
        reader = (
            None
            if plan is None
            else plan.readers.get(role) or (plan.readers.get("pooled") if role == "pre_logits" else None)
        )
        return None if reader is None else classifier(self.net, reader, channels)

    def plan(self, x: Tensor) -> Plan:
        """The plan of features for inputs of this size; made once for each size."""
        size = tuple(x.shape[2:])
        known = self._plans.get(size)
        if known is None:
            with quiet(self.net, x.device), torch.autocast(x.device.type, enabled=False):
                known = self._found(x)
                self._plans[size] = known
                self._listen(known)
                for line in known.left_out:
                    notice(f"{type(self.net).__name__}: {line}")
                self._tape.copied |= self._run(random_input(x))[2]
        return known

    def feature_spec(self, role: str, shape: Sequence[int]) -> FeatureSpec | None:
        """The facts of a feature of this shape, without the batch axis."""
        tap = next((plan.taps[role] for plan in self._plans.values() if role in plan.taps), None)
        if tap is None:
            return None
        return tap.layout.spec(shape, f"taps={{{role}: '{tap.sources[0].path}:bhwc'}} (or bchw, blc, blc+1, bcl)")

    def forward(self, x: Tensor) -> Outputs:
        plan = self.plan(x)
        logits, found, changed = self._run(x)
        if changed:
            self._tape.copied |= changed
            if self.net.training:
                roles = [role for role, tap in plan.taps.items() if changed & set(tap.sources)]
                raise ValueError(
                    f"the network changes the feature {', '.join(roles)} in place: run it once in evaluation mode "
                    "(kdx.models.probe does), after which the feature is copied"
                )
            logits, found, _ = self._run(x)
        features = {}
        for role, tap in plan.taps.items():
            tensors = [found[source] for source in tap.sources if source in found]
            if len(tensors) == len(tap.sources):
                features[role] = tap.feature(tensors)
        return Outputs(logits, features)

    def _found(self, x: Tensor) -> Plan:
        if self.taps is None:
            plan = library_plan(self.net, x, self.heads)
        else:
            plan = module_plan(self.net, x, self.taps, self.heads, self.strict, self.output)
        if self.guessed and not plan.readers:
            self.heads = []
            plan.taps = {role: tap for role, tap in plan.taps.items() if role in (self.taps or {})}
        return plan

    def _listen(self, plan: Plan) -> None:
        """Register the hooks of a plan, each once."""
        modules = dict(self.net.named_modules())
        for source in {source: None for tap in plan.taps.values() for source in tap.sources}:
            key = source.path, source.of
            if key not in self._tape.wanted:
                self._tape.wanted[key] = []
                if source.of == "output":
                    modules[source.path].register_forward_hook(_OutputHook(self._tape, key))
                else:
                    modules[source.path].register_forward_pre_hook(_InputHook(self._tape, key))
            if source not in self._tape.wanted[key]:
                self._tape.wanted[key].append(source)

    def _run(self, x: Tensor) -> tuple[Tensor, dict[Source, Tensor], set[Source]]:
        tape = self._tape
        tape.open = True
        try:
            logits = find_logits(self.net(x), self.output, type(self.net).__name__)
            found, changed = tape.found, tape.changed()
        finally:
            tape.clear()
        return logits, found, changed


def plain(model: nn.Module) -> nn.Module:
    """The network without this package's wrappers (`Tapped`, `Frozen`), as exported."""
    while isinstance(model, Tapped | Frozen):
        model = model.net
    return model
