"""How a tensor inside a network becomes a feature."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kdx.core.outputs import FeatureSpec

Axes = Literal["bchw", "bhwc", "blc", "bcl", "bc", "mean", "mean_hw", "raw"]
AXES = ("bchw", "bhwc", "blc", "bcl", "bc")
MOST_PREFIX = 16
"""Most tokens in front of a grid that are looked for."""


@dataclass(frozen=True)
class Layout:
    """The axes of a tensor.

    Attributes:
        axes: "bchw" and "bhwc" are maps; "blc" and "bcl" tokens with the channels last or second; "bc" vectors; "mean"
            and "mean_hw" are averaged over the positions, with the channels last or second. "raw" is undecided.
        prefix: Number of tokens in front that are no position.
        grid: Height and width of the remaining tokens; None if they form no grid.
    """

    axes: Axes
    prefix: int = 0
    grid: tuple[int, int] | None = None

    def feature(self, x: Tensor) -> Tensor:
        """The feature: a map [B, C, H, W], tokens [B, L, C] without prefix, or a vector [B, C]. A view, save means."""
        match self.axes:
            case "bhwc":
                return x.permute(0, 3, 1, 2)
            case "blc" | "bcl":
                tokens = x if self.axes == "blc" else x.mT
                tokens = tokens[:, self.prefix :] if self.prefix else tokens
                return tokens if self.grid is None else tokens.mT.unflatten(2, self.grid)
            case "bc":
                return x if x.dim() == 2 else x.flatten(1)
            case "mean":
                return as_vector(x)
            case "mean_hw":
                return x.mean((2, 3))
            case _:
                return x

    def spec(self, shape: Sequence[int], key: str) -> FeatureSpec:
        """The facts of a feature of this shape, without the batch axis; `key` would decide an undecided one."""
        if self.axes == "raw" and len(shape) > 1:
            return FeatureSpec("undecided", 0, None, 0, key)
        if len(shape) == 3:
            return FeatureSpec("map", shape[0], (shape[1], shape[2]), self.prefix)
        return (
            FeatureSpec("vector", shape[-1], None, 0)
            if len(shape) == 1
            else FeatureSpec("tokens", shape[-1], None, self.prefix)
        )


def as_vector(x: Tensor) -> Tensor:
    """Average the positions: [B, C], [B, C, 1, 1] and [B, ..., C] give [B, C]."""
    if x.dim() == 4 and x.shape[2:].numel() == 1:
        return x.flatten(1)
    return x.flatten(1, -2).mean(1) if x.dim() > 2 else x


@dataclass(frozen=True)
class Source:
    """A tensor inside a network: an input or output of a module, or an entry of a tuple there.

    Attributes:
        path: Path of the module.
        of: Which side of the module.
        index: Positions within nested tuples and lists, or keys of mappings; empty for a single tensor.
    """

    path: str
    of: Literal["input", "output"]
    index: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Tap:
    """A feature: one tensor of a network, or several vectors that are averaged or put side by side."""

    sources: tuple[Source, ...]
    layout: Layout
    several: Literal["mean", "cat"] = "mean"

    def feature(self, tensors: Sequence[Tensor]) -> Tensor:
        """The feature, from the tensors of the sources."""
        if len(tensors) == 1:
            return self.layout.feature(tensors[0])
        vectors = [self.layout.feature(x) for x in tensors]
        return torch.cat(vectors, 1) if self.several == "cat" else torch.stack(vectors).mean(0)


def entries(value: object, index: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], Tensor]]:
    """The tensors in nested tuples, lists and mappings, with their positions."""
    if isinstance(value, Tensor):
        yield index, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from entries(item, (*index, str(key)))
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from entries(item, (*index, i))


def entry(value: object, index: tuple[int | str, ...]) -> object:
    """The item of nested tuples, lists and mappings at a position; None if it is not there."""
    for key in index:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, tuple | list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape are equal up to rounding, and not constant."""
    if a.shape != b.shape or not b.is_floating_point():
        return False
    a, b = a.detach().float(), b.detach().float()
    scale = float(b.abs().max()) if b.numel() else 0.0
    return 0 < scale < float("inf") and float((a - b).abs().max()) <= 1e-4 * scale


def fit(x: Tensor, target: Tensor) -> Layout | None:
    """The layout in which a tensor equals a map [B, C, H, W]; None if it does in none."""
    _, channels, height, width = target.shape
    if x.numel() < target.numel() or x.shape[:1] != target.shape[:1]:
        return None
    if x.dim() == 4:
        choices = [Layout("bchw"), Layout("bhwc")]
    elif x.dim() == 3:
        places, grid = height * width, (height, width)
        choices = [Layout("blc", x.shape[1] - places, grid)] if x.shape[2] == channels else []
        choices += [Layout("bcl", x.shape[2] - places, grid)] if x.shape[1] == channels else []
        choices = [layout for layout in choices if 0 <= layout.prefix <= MOST_PREFIX]
    else:
        return None
    return next((layout for layout in choices if close(layout.feature(x), target)), None)


def parse(text: str) -> tuple[str, Layout | None]:
    """A tap as a config writes it: a module path, with the axes of its output behind a colon if they are given.

    `blocks.3:blc+1` are tokens [B, L, C] of which the first is no position.

    Raises:
        ValueError: The axes are unknown.

    Example:
        >>> parse("layers.2:bhwc")
        ('layers.2', Layout(axes='bhwc', prefix=0, grid=None))
        >>> parse("layer1")
        ('layer1', None)
    """
    path, colon, axes = text.partition(":")
    if not colon:
        return path, None
    name, _, prefix = axes.partition("+")
    if name not in AXES or not (prefix.isdigit() or not prefix):
        raise ValueError(f"'{text}' gives axes '{axes}'; write one of {', '.join(AXES)}, or blc+1 for one class token")
    return path, Layout(name, int(prefix or 0))  # pyright: ignore[reportArgumentType]


def with_grid(layout: Layout, tokens: int, aspect: float) -> Layout:
    """Tokens with a grid of the image's aspect ratio, if their number without prefix allows it."""
    places = tokens - layout.prefix
    height = round((places * aspect) ** 0.5)
    if height < 1 or places % height or abs(height / (places // height) - aspect) > 1e-6 * aspect:
        return layout
    return replace(layout, grid=(height, places // height))
