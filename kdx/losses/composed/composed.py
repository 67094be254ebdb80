"""A distiller as data: input, three transforms, distance."""

from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_same_logits
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Roles
from kdx.losses.composed.distances import distance
from kdx.losses.composed.rules import (
    Attention,
    Chain,
    Distance,
    Normalise,
    Scope,
    wrong,
    wrong_for_size,
    wrong_for_vectors,
)
from kdx.losses.composed.transforms import attended, drawn_mask, normalised, scoped
from kdx.losses.features.at import to_common_size
from kdx.losses.features.fitnet import map_adapter

Align = Literal["none", "channels", "regressor"]


@full_precision
def composed(student: Tensor, teacher: Tensor, chain: Chain, mask: Tensor | None) -> Tensor:
    """Distance of two features after the same transforms, times T^2 where they end in a softmax at temperature T.

    Args:
        student: Map [B, C, H, W].
        teacher: Map [B, C', H', W'], of the sizes that the chain compares; gets no gradient.
        chain: Transforms and distance.
        mask: Positions that attention=mask keeps, [B, 1, H, W]; None keeps all.

    Returns:
        [B].

    References:
        Li, Dong, Li, Wei, Yang, "KD-Zero: Evolving Knowledge Distiller for Any Teacher-Student Pairs", 2023.
        https://openreview.net/forum?id=OlMKa5YZ8e

    Example:
        >>> parts = dict(attention="none", scope="none", normalise="none", distance="mse", temperature=None)
        >>> composed(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0), Chain(**parts), None)
        tensor([9.])
    """
    rows = []
    for maps in (student, teacher.detach()):
        found = scoped(attended(maps, chain.attention, mask), chain.scope)
        side = normalised(found, chain.normalise, chain.temperature)
        rows.append(side.exp() if chain.softmax and chain.distance != "kl" else side)
    value = distance(rows[0], rows[1], chain.distance)
    return value if chain.temperature is None else value * chain.temperature**2


class Composed(Paired):
    """A distiller composed of parts, summed over pairs of features. KD, FitNet, AT, SP, CWD and DIST are instances.

    Student and teacher pass the same transforms. Maps are first pooled to the smaller size of the two, unless the
    scope compares examples or channels.

    Args:
        roles: "logits" for the logits; else features: a list names the same roles on both sides, a mapping goes from
            the student's role to the teacher's. None for all stages but the stem.
        align: Layer on the student's feature. "channels" is a 1 x 1 convolution (for vectors a linear layer) where
            the numbers of channels differ and are compared; "regressor" is FitNet's; "none" is no layer.
        attention: First transform: "none", "spatial" or "channel" attention, "energy" (mean square over channels), or
            "mask" (keeps random positions, in training).
        scope: Second transform: "none", "pool2", "pool4" (max pools), "patches2", "patches4" (patches as positions),
            "channels" or "examples" (products of pairs).
        normalise: Third transform: "none", "flatten" or "by_channel" (rows of the distance), "unit", "unit_channels",
            "unit_positions" or "unit_examples" (length 1), "softmax_channels", "softmax_positions", "standardise", or
            "min_max".
        distance: "l1", "mse", "smooth_l1", "euclidean", "cosine", "pearson", "pearson_examples", "pearson_both" or
            "kl".
        temperature: T of a softmax; None without one.

    Raises:
        ValueError: The parts together have no gradient, or equal simpler ones.
    """

    called = "Composed"
    aligns: nn.ModuleList

    def __init__(
        self,
        roles: Roles | Literal["logits"] | None,
        align: Align,
        attention: Attention,
        scope: Scope,
        normalise: Normalise,
        distance: Distance,
        temperature: Positive | None,
    ):
        logits = roles == "logits"
        super().__init__(None if logits else roles)
        self.reads_logits, self.align = logits, align
        self.chain = Chain(
            attention=attention, scope=scope, normalise=normalise, distance=distance, temperature=temperature
        )
        if (reason := (wrong_for_vectors if logits else wrong)(self.chain)) is not None:
            raise ValueError(f"Composed: {reason}")
        if logits and align != "none":
            raise ValueError("Composed: logits need no layer: write align=none")
        self.divisible = not self.chain.relates_examples

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        if self.reads_logits:
            require_same_logits(student, teacher, "Composed")
            self._must_fit(spec.num_classes, (1, 1))
            return
        self.aligns = nn.ModuleList()
        for (mine, theirs), (role, other) in zip(self.shapes(student, teacher), self.pairs, strict=True):
            if len(mine) != len(theirs):
                raise ValueError(
                    f"Composed compares features of one kind, and the student's '{role}' has the shape {mine}, the "
                    f"teacher's '{other}' {theirs}"
                )
            if len(theirs) == 1 and (reason := wrong_for_vectors(self.chain)) is not None:
                raise ValueError(f"Composed on the vector '{role}': {reason}")
            (channels, *size), (others, *theirs_size) = _as_map(mine), _as_map(theirs)
            layer = self._layer(mine, theirs, channels, others)
            self.aligns.append(layer)
            size = theirs_size if self.align == "regressor" else size
            grid = min(size[0], theirs_size[0]), min(size[1], theirs_size[1])
            self._must_fit(others, grid)

    def _layer(self, mine: tuple[int, ...], theirs: tuple[int, ...], channels: int, others: int) -> nn.Module:
        if self.align == "regressor":
            if len(mine) == 2:
                raise ValueError("Composed: align=regressor maps maps and vectors, no tokens: write align=channels")
            return map_adapter(mine, theirs) if len(mine) == 3 else nn.Linear(mine[0], theirs[0])
        if channels == others or not self.chain.compares_channels:
            return nn.Identity()
        if self.align == "none":
            raise ValueError(
                f"Composed compares channels, and the student has {channels}, the teacher {others}: write "
                "align=channels"
            )
        return nn.Linear(channels, others) if len(mine) < 3 else nn.Conv2d(channels, others, 1)

    def _must_fit(self, channels: int, grid: tuple[int, int]) -> None:
        if (reason := wrong_for_size(self.chain, channels, grid)) is not None:
            raise ValueError(f"Composed: {reason}")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        if self.reads_logits:
            return self._value(student.logits, teacher.logits)
        pairs = zip(self.aligns, self.features(student, teacher), strict=True)
        return torch.stack([self._value(layer(mine), theirs) for layer, (mine, theirs) in pairs]).sum(0)

    def _value(self, mine: Tensor, theirs: Tensor) -> Tensor:
        mine, theirs = _maps(mine), _maps(theirs)
        if self.chain.compares_positions:
            mine, theirs = to_common_size(mine, theirs)
        masked = self.chain.attention == "mask" and self.training
        return composed(mine, theirs, self.chain, drawn_mask(mine) if masked else None)


def _as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a feature: tokens (L, C) are a map of L x 1."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return (shape[1], shape[0], 1) if len(shape) == 2 else (shape[0], 1, 1)


def _maps(feature: Tensor) -> Tensor:
    """A feature as maps [B, C, H, W]; tokens [B, L, C] have a width of 1."""
    if feature.ndim == 3:
        return feature.mT[..., None]
    return feature if feature.ndim == 4 else feature[:, :, None, None]
