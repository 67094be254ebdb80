"""Plans the features of a network: its stages, the map before the pooling, the vector after it, and the classifier."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdx.models.answers import Key, find_logits
from kdx.models.features.axes import decide
from kdx.models.features.ends import Plan, add_ends
from kdx.models.features.layout import Layout, Source, Tap, entries, parse, with_grid
from kdx.models.features.quiet import random_input, randomised
from kdx.models.features.record import Recording, is_vector, record
from kdx.models.stages import PARTS, name_stages, parts


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
                plan.left_out.append(f"'{role}' is left out: no module returns it")
            else:
                plan.taps[role] = Tap(found[:1], found[1])
        deepest = {"stage": maps[-1]} if maps else {}
        ahead = {"last": last, **deepest} if last is not None else deepest
        pooled = _penultimate(net, final)
        add_ends(plan, net, recording, heads, logits, ahead, pooled)
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
                plan.left_out.append(f"'{role}' is left out: '{path}' did not run or returned no tensor")
                continue
            index, found = of
            layout = given or decide(net, net.get_submodule(path), x, found, _entry_shape(other, path, index))
            if given is not None and given.axes in ("blc", "bcl"):
                layout = with_grid(given, found.shape[1 if given.axes == "blc" else 2], x.shape[-2] / x.shape[-1])
            plan.taps[role] = Tap((Source(path, "output", index),), layout)
            if role.startswith("stage") and found.dim() > 2 and layout.axes != "raw":
                deepest = {"stage": layout.feature(found)}
        mine = dict(plan.taps)
        add_ends(plan, net, recording, heads, logits, deepest, None)
        plan.readers = {
            role: reader for role, reader in plan.readers.items() if mine.get(role) in (None, plan.taps.get(role))
        }
        plan.taps |= mine
        if strict and "last" not in taps and plan.taps.pop("last", None) is not None:
            plan.readers.pop("last", None)  # only the requested features and the classifier's
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
    """The input of timm's head, if it is one map [B, C, H, W]; else None."""
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
