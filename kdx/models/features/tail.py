"""The way from the last map to the logits, followed backwards by value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.models.features.classifier import SILENT, Classifier, Reader, Step, form_of
from kdx.models.features.layout import MOST_PREFIX, Layout, Source, Tap, as_vector, close
from kdx.models.features.record import Recording, is_vector


@dataclass(frozen=True)
class Pooling:
    """The map that is pooled.

    Attributes:
        known: Name of the target that it is; None if it is at `source`.
        source: Where it is.
        layout: Its axes.
        rule: How it becomes a vector; "other" cannot be repeated.
    """

    known: str | None
    source: Source | None
    layout: Layout
    rule: Literal["mean", "relu", "token", "other"]


def find_heads(net: nn.Module, recording: Recording, heads: Sequence[str], logits: Tensor) -> tuple[Tap, Reader] | None:
    """The vector that enters the final classifier, and its way to the logits; None if no choice gives the logits.

    Tries the first classifier alone, then the mean of all, of one vector or of one each.
    """
    ran = [path for path in heads if path in recording.inputs]
    for paths in [ran[:1], ran] if len(ran) > 1 else [ran]:
        if not paths:
            continue
        given = [recording.inputs[path] for path in paths]
        layouts = [_head_layout(net.get_submodule(path), x) for path, x in zip(paths, given, strict=True)]
        vectors = [layout.feature(x) for layout, x in zip(layouts, given, strict=True)]
        chains = tuple(
            (Step(path, form_of(x) if is_vector(x) else "bc11" if layout.axes == "mean_hw" else "bc"),)
            for path, x, layout in zip(paths, given, layouts, strict=True)
        )
        one = all(v.shape == vectors[0].shape and torch.equal(v, vectors[0]) for v in vectors)
        reader = Reader(chains, () if one else tuple(v.shape[1] for v in vectors))
        joined = vectors[0] if one else torch.cat(vectors, 1)
        if close(Classifier(net, reader, joined.shape[1])(joined), logits.flatten(1)):
            sources = tuple(Source(path, "input", (0,)) for path in (paths[:1] if one else paths))
            return Tap(sources, layouts[0], "cat"), reader
    return None


def find_pooling(
    net: nn.Module, recording: Recording, vector: Tensor, chain: Sequence[Step], known: Mapping[str, Tensor]
) -> tuple[Pooling, Reader] | None:
    """The map that is pooled, and its way to the logits, from the vector that a single classifier reads.

    Args:
        net: The network.
        recording: Of its forward pass.
        vector: What the classifier reads, [B, D].
        chain: The classifier.
        known: Maps [B, C, H, W] that may be what is pooled, by name.
    """
    steps, current = list(chain), vector
    if (found := _pooled_known(known, current)) is not None:
        return found, _reader(steps, found)
    for event in reversed(recording.vectors):
        if not close(as_vector(event.result), current):
            continue
        if not is_vector(event.given):
            layout, rule = _rule(event.given, current) or (None, "other")
            if layout is not None:
                pooling = Pooling(None, Source(event.path, "input", (0,)), layout, rule)
                return pooling, _reader(steps, pooling)
            continue
        if not event.leaf:
            continue
        if not isinstance(net.get_submodule(event.path), SILENT):
            steps.insert(0, Step(event.path, form_of(event.given)))
        current = as_vector(event.given)
        if (found := _pooled_known(known, current)) is not None:
            return found, _reader(steps, found)
    for source, x in reversed(recording.maps):
        if (fitting := _rule(x, current)) is not None:
            pooling = Pooling(None, source, *fitting)
            return pooling, _reader(steps, pooling)
    return None


def _pooled_known(known: Mapping[str, Tensor], vector: Tensor) -> Pooling | None:
    for name, x in known.items():
        fitting = _rule(x, vector)
        if fitting is not None and fitting[0].axes in ("bchw", "bc"):
            return Pooling(name, None, Layout("bchw"), fitting[1])
    return None


def _rule(x: Tensor, vector: Tensor) -> tuple[Layout, Literal["mean", "relu", "token"]] | None:
    """The axes of a map or of tokens and the rule by which they are pooled to a vector."""
    width = vector.shape[1]
    if x.dim() == 4:
        for layout, axis in ((Layout("bchw"), 1), (Layout("bhwc"), 3)):
            if x.shape[axis] == width:
                maps = layout.feature(x)
                if close(maps.mean((2, 3)), vector):
                    return layout, "mean"
                if close(F.relu(maps).mean((2, 3)), vector):
                    return layout, "relu"
    elif x.dim() == 3 and x.shape[2] == width and x.shape[1] > 1:
        for prefix in range(min(MOST_PREFIX, x.shape[1] - 1)):
            if close(x[:, prefix:].mean(1), vector):
                return Layout("blc", prefix), "mean"
        if close(x[:, 0], vector):
            return Layout("blc", 1), "token"
    return None


def _reader(steps: Sequence[Step], pooling: Pooling) -> Reader:
    return Reader((tuple(steps),), (), pooling.rule == "relu")


def _head_layout(head: nn.Module, x: Tensor) -> Layout:
    if is_vector(x):
        return Layout("bc")
    return Layout("mean_hw" if isinstance(head, nn.Conv2d) else "mean")
