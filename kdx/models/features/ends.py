"""The end of a network's plan: the map before the pooling, the vectors after it, and the classifiers that read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from kdx.models.features.classifier import Classifier, Reader
from kdx.models.features.layout import Layout, Source, Tap, as_vector, close
from kdx.models.features.record import Recording, is_vector
from kdx.models.features.tail import Pooling, find_heads, find_pooling


@dataclass
class Plan:
    """The places of a network's features.

    Attributes:
        taps: Features by role.
        readers: By role, how a feature becomes logits; checked by value.
        left_out: Features that are not there, a sentence each.
        notes: What could not be found, a sentence each.
    """

    taps: dict[str, Tap] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def add_ends(
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
        if len(reader.chains) == 1:  # a norm between the two, say
            way = find_pooling(
                net, recording, vector, reader.chains[0], {"pooled": as_vector(pooled)[:, :, None, None]}
            )
            if way is not None and way[0].known == "pooled" and _reads(net, way[1], as_vector(pooled), logits):
                plan.readers["pooled"] = way[1]
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
    for event in reversed(recording.vectors):  # nearest to the classifier
        if event.leaf and is_vector(event.given) and close(as_vector(event.given), as_vector(vector)):
            plan.taps[role] = Tap((Source(event.path, "input", (0,)),), Layout("bc"))
            return
        if close(as_vector(event.result), as_vector(vector)):
            plan.taps[role] = Tap((Source(event.path, "output"),), Layout("bc"))
            return
    plan.left_out.append(f"'{role}' is left out: no module returns it")


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
    if value is None or not _reads(net, way[1], value, logits):
        return
    stages = [role for role in plan.taps if role.startswith("stage")]
    for role in ["last"] if "last" in plan.taps else ["last", *stages[-1:]]:
        plan.readers[role] = way[1]


def _reads(net: nn.Module, reader: Reader, feature: Tensor, logits: object) -> bool:
    """Whether a reader turns a feature into the logits."""
    return isinstance(logits, Tensor) and close(Classifier(net, reader, feature.shape[1])(feature), logits.flatten(1))


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
