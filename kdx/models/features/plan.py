"""What is captured of a network: its stages, the map before the pooling, the vector after it, and the classifier."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from kdx.models.answers import Key, find_logits
from kdx.models.features.axes import decide
from kdx.models.features.classifier import Classifier, Reader
from kdx.models.features.layout import Layout, Source, Tap, as_vector, close, entries, parse, with_grid
from kdx.models.features.quiet import random_input, randomised
from kdx.models.features.record import Recording, is_vector, record
from kdx.models.features.tail import Pooling, find_heads, find_pooling
from kdx.models.stages import PARTS, name_stages, parts


@dataclass
class Plan:
    """Where the features of a network are.

    Attributes:
        taps: Features by role.
        readers: By role, how a feature becomes logits; checked by value.
        notes: What was left out, a sentence each.
    """

    taps: dict[str, Tap] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def has_grid(self) -> bool:
        """Whether a feature's layout depends on the size of the input."""
        return any(tap.layout.grid is not None for tap in self.taps.values())


def library_plan(net: Any, x: Tensor, heads: Sequence[str]) -> Plan:
    """The plan of a network of timm, by its own `forward_intermediates`, `forward_features` and `forward_head`.

    Where each of these tensors is made is found by value, on random inputs and with random norms. Must run in
    evaluation mode and without gradients.

    Args:
        net: The network.
        x: An input.
        heads: Paths of its classifiers, the main one first.
    """
    with randomised(net):
        x = random_input(x)
        maps = _intermediates(net, x)
        final = net.forward_features(x.clone())
        last = _as_map(net, final, maps[-1] if maps else None)
        known = {str(i): m for i, m in enumerate(maps)} | ({} if last is None else {"last": last})
        logits, recording = record(net, x, known, heads=heads)
        plan = Plan()
        named = _stages(x, maps)
        for role, i in named.items():
            found = recording.source(str(i))
            if found is None:
                plan.notes.append(f"'{role}' is left out: no module returns it")
            else:
                plan.taps[role] = Tap(found[:1], found[1])
        deepest = {"stage": maps[-1]} if maps else {}
        ahead = {"last": last, **deepest} if last is not None else deepest
        pooled = _penultimate(net, final)
        _add_tail(plan, net, recording, heads, logits, ahead, pooled)
    return plan


def module_plan(
    net: nn.Module, x: Tensor, taps: Mapping[str, str], heads: Sequence[str], strict: bool, output: Key
) -> Plan:
    """The plan of a network whose stages are the outputs of given modules.

    Args:
        net: The network.
        x: An input.
        taps: Module path by role, with the axes of its output behind a colon where they are given.
        heads: Path of its classifier, if there is one.
        strict: Whether a module that does not run is an error; else its role is left out.
        output: Where the logits are in the network's output, see `find_logits`.

    Raises:
        ValueError: A module does not run, or returns no tensor.
    """
    parsed = {role: parse(text) for role, text in taps.items()}
    paths = [path for path, _ in parsed.values()]
    with randomised(net):
        x = random_input(x)
        answer, recording = record(net, x.clone(), {}, outputs=paths, heads=heads)
        logits = find_logits(answer, output, type(net).__name__)
        chosen = {role: _chosen(recording.outputs.get(path)) for role, (path, _) in parsed.items()}
        other: Recording | None = None
        if any(of is not None and of[1].dim() > 2 and parsed[role][1] is None for role, of in chosen.items()):
            other = _at_double(net, x, paths)
        plan, deepest = Plan(), dict[str, Tensor]()
        for role, (path, given) in parsed.items():
            of = chosen[role]
            if of is None:
                if strict:
                    raise ValueError(f"module '{path}', tapped for '{role}', did not run or returned no single tensor")
                plan.notes.append(f"'{role}' is left out: '{path}' did not run or returned no tensor")
                continue
            index, found = of
            layout = given or decide(net, net.get_submodule(path), x, found, _entry_shape(other, path, index))
            if given is not None and given.axes in ("blc", "bcl"):
                layout = with_grid(given, found.shape[1 if given.axes == "blc" else 2], x.shape[-2] / x.shape[-1])
            plan.taps[role] = Tap((Source(path, "output", index),), layout)
            if role.startswith("stage") and found.dim() > 2 and layout.axes != "raw":
                deepest = {"stage": layout.feature(found)}
        mine = dict(plan.taps)
        _add_tail(plan, net, recording, heads, logits, deepest, None)
        plan.readers = {
            role: reader for role, reader in plan.readers.items() if mine.get(role) in (None, plan.taps.get(role))
        }
        plan.taps |= mine
        if strict and "last" not in taps and plan.taps.pop("last", None) is not None:
            plan.readers.pop("last", None)  # only the features that were asked for, and the classifier's
    return plan


def _intermediates(net: Any, x: Tensor) -> list[Tensor]:
    maps = net.forward_intermediates(x.clone(), intermediates_only=True)
    return [m for m in maps if isinstance(m, Tensor) and m.dim() == 4]


def _stages(x: Tensor, maps: Sequence[Tensor]) -> dict[str, int]:
    """Position of each stage among the maps, by role."""
    sizes = [m.shape[2:] for m in maps]
    if len(maps) > PARTS and len(set(sizes)) == 1:
        chosen = [int(i) for i in parts([str(i) for i in range(len(maps))])]
    else:
        chosen = [i for i, size in enumerate(sizes) if i + 1 == len(sizes) or sizes[i + 1] != size or len(maps) <= 6]
    first = round(x.shape[2] / sizes[0][0]) if sizes else None
    return {role: int(i) for role, i in name_stages([str(i) for i in chosen], first).items()}


def _as_map(net: Any, final: object, deepest: Tensor | None) -> Tensor | None:
    """What enters timm's head as a map [B, C, H, W]; None where it is several tensors or no map."""
    if not isinstance(final, Tensor) or deepest is None:
        return None
    if final.dim() == 4:
        last = getattr(net, "output_fmt", "NCHW") == "NHWC" or final.shape[1] != net.num_features
        return final.permute(0, 3, 1, 2) if last and final.shape[3] == net.num_features else final
    places = deepest.shape[2:].numel()
    if final.dim() == 3 and 0 <= final.shape[1] - places <= 16:
        return Layout("blc", final.shape[1] - places, (deepest.shape[2], deepest.shape[3])).feature(final)
    return None


def _penultimate(net: Any, final: object) -> Tensor | None:
    try:
        found = net.forward_head(copy.deepcopy(final), pre_logits=True)
    except (TypeError, AttributeError):  # no such argument, or no such method
        return None
    return found if isinstance(found, Tensor) and is_vector(found) else None


def _add_tail(
    plan: Plan,
    net: nn.Module,
    recording: Recording,
    heads: Sequence[str],
    logits: object,
    known: Mapping[str, Tensor],
    pooled: Tensor | None,
) -> None:
    """Add `last`, `pooled`, `pre_logits` and their readers."""
    ran = [path for path in heads if path in recording.inputs]
    found = find_heads(net, recording, ran, logits) if isinstance(logits, Tensor) else None
    if found is None:
        if pooled is None and ran:
            x = recording.inputs[ran[0]]
            conv = isinstance(net.get_submodule(ran[0]), nn.Conv2d) and not is_vector(x)
            plan.taps["pooled"] = Tap((Source(ran[0], "input", (0,)),), Layout("mean_hw" if conv else "mean"))
            pooled = plan.taps["pooled"].layout.feature(x)
        elif pooled is not None:
            _add_vector(plan, "pooled", recording, pooled)
        plan.notes.append("no part of it turns 'pooled' into its logits")
        if pooled is not None:
            _add_last(plan, net, find_pooling(net, recording, as_vector(pooled), (), known), recording, known, None)
        return
    tap, reader = found
    parts = [
        as_vector(recording.inputs[s.path]) if tap.layout.axes == "bc" else tap.layout.feature(recording.inputs[s.path])
        for s in tap.sources
    ]
    vector = torch.cat(parts, 1)
    if pooled is None or close(as_vector(pooled), vector):
        plan.taps["pooled"], plan.readers["pooled"] = tap, reader
    else:
        plan.taps["pre_logits"], plan.readers["pre_logits"] = tap, reader
        mean = torch.stack(parts).mean(0) if len({p.shape for p in parts}) == 1 else None
        if len(parts) > 1 and mean is not None and close(as_vector(pooled), mean):
            plan.taps["pooled"] = replace(tap, several="mean")
        else:
            _add_vector(plan, "pooled", recording, pooled)
    if len(reader.chains) == 1:
        _add_last(plan, net, find_pooling(net, recording, vector, reader.chains[0], known), recording, known, logits)
    elif not reader.widths:
        way = find_pooling(net, recording, vector, (), known)
        if way is not None:
            more = way[1].chains[0]
            way = way[0], replace(reader, chains=tuple((*more, *chain) for chain in reader.chains), relu=way[1].relu)
        _add_last(plan, net, way, recording, known, logits)


def _add_vector(plan: Plan, role: str, recording: Recording, vector: Tensor) -> None:
    for path, x in recording.inputs.items():
        if is_vector(x) and close(as_vector(x), as_vector(vector)):
            plan.taps[role] = Tap((Source(path, "input", (0,)),), Layout("bc"))
            return
    for event in recording.vectors:
        if close(as_vector(event.result), as_vector(vector)):
            plan.taps[role] = Tap((Source(event.path, "output"),), Layout("bc"))
            return
    plan.notes.append(f"'{role}' is left out: no module returns it")


def _add_last(
    plan: Plan,
    net: nn.Module,
    way: tuple[Pooling, Reader] | None,
    recording: Recording,
    known: Mapping[str, Tensor],
    logits: object,
) -> None:
    pooling = Pooling(None, None, Layout("raw"), "other") if way is None else way[0]
    if pooling.known is None and pooling.source is None and "last" in known:  # as far as it could be followed
        pooling = replace(pooling, known="last")
    if pooling.known is not None and close(known[pooling.known], known.get("stage", known[pooling.known])):
        pass  # the deepest stage, which `last` stands for
    elif pooling.known is not None and (found := recording.source(pooling.known)) is not None:
        plan.taps["last"] = Tap(found[:1], found[1])
    elif pooling.source is not None:
        plan.taps["last"] = Tap(
            (pooling.source,), _completed(pooling.layout, known.get("stage"), recording, pooling.source)
        )
    else:
        plan.notes.append("the map that enters the pooling was not found; 'last' is the deepest stage")
        return
    if way is None or not isinstance(logits, Tensor) or way[0].rule not in ("mean", "relu"):
        return
    value = known[pooling.known] if pooling.known is not None else _at(recording, plan.taps["last"])
    if value is None or not close(Classifier(net, way[1], value.shape[1])(value), logits.flatten(1)):
        return
    stages = [role for role in plan.taps if role.startswith("stage")]
    for role in ["last"] if "last" in plan.taps else ["last", *stages[-1:]]:
        plan.readers[role] = way[1]


def _at(recording: Recording, tap: Tap) -> Tensor | None:
    """The map of a tap, if it was kept."""
    x = next((x for at, x in recording.maps if at == tap.sources[0]), None)
    feature = None if x is None else tap.layout.feature(x)
    return feature if feature is None or feature.dim() == 4 else feature.mT[:, :, :, None]


def _completed(layout: Layout, deepest: Tensor | None, recording: Recording, source: Source) -> Layout:
    """Tokens with the grid of the deepest stage, if their number fits."""
    if layout.axes != "blc" or deepest is None:
        return layout
    tokens = next((x.shape[1] for at, x in recording.maps if at == source), 0)
    height, width = deepest.shape[2:]
    fits = tokens - layout.prefix == height * width
    return replace(layout, grid=(height, width)) if fits else layout


def _chosen(value: object) -> tuple[tuple[int | str, ...], Tensor] | None:
    """The tensor of a module's output that is the feature: the first with positions, else the first."""
    found = list(entries(value))
    return next((of for of in found if of[1].dim() > 2), found[0] if found else None)


def _at_double(net: nn.Module, x: Tensor, paths: Sequence[str]) -> Recording | None:
    """A recording at twice the height and width, as far as the network runs; None where inputs are no images."""
    if x.dim() != 4:
        return None
    try:
        twin = copy.deepcopy(net)
        return record(twin, x.repeat(1, 1, 2, 2), {}, outputs=paths)[1]
    except Exception as error:  # a network of one input size fails somewhere; the modules before have run
        return getattr(error, "recording", None)


def _entry_shape(recording: Recording | None, path: str, index: tuple[int | str, ...]) -> torch.Size | None:
    if recording is None:
        return None
    return next((x.shape for at, x in entries(recording.outputs.get(path)) if at == index), None)
