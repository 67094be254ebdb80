"""Overlap of decision regions on planes through examples."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.ranges import Count, NonNegative, PositiveInt
from kdx.core.seed import generator
from kdx.studies.measures.base import Examples, Scores, pair

PART = 1000  # points that a network reads at a time


@dataclass(frozen=True, kw_only=True)
class RegionOverlap:
    """Share of the points of random planes that two networks give the same class, mean over planes.

    Each plane goes through three examples of the split; its points form a square grid.

    Attributes:
        planes: Number of planes.
        points: Points on each side of the grid.
        margin: Distance of the grid's border to the examples, as a share of their extent.
        seed: Seed of the examples.

    References:
        Somepalli et al., "Can Neural Nets Learn the Same Model Twice?", 2022. https://arxiv.org/abs/2203.08124
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023.
        https://arxiv.org/abs/2205.16004
    """

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(name="overlap", label="overlap", unit="%", digits=2, better="higher", shown=True),
    )
    notes: ClassVar[Sequence[str]] = (
        "A / B: overlap is the share of points of planes through three examples that A and B give the same class",
    )

    planes: PositiveInt
    points: PositiveInt
    margin: NonNegative
    seed: Count

    @torch.no_grad()
    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Scores:
        images = torch.cat([batch.input_tensor for batch in batches])
        if len(images) < 3:
            raise UserError(f"study.measure: a plane needs three examples, and the split has {len(images)}")
        g = generator(self.seed, "planes")
        sums = defaultdict[str, float](float)
        for _ in range(self.planes):
            grid = plane(images[torch.randperm(len(images), generator=g)[:3]], self.points, self.margin)
            guess = {
                name: torch.cat([net(part).logits.argmax(1) for part in grid.split(PART)])
                for name, net in networks.items()
            }
            for one, other in permutations(networks, 2):
                sums[pair(one, other)] += float((guess[one] == guess[other]).double().mean())
        return {row: {"overlap": value / self.planes} for row, value in sums.items()}


def plane(corners: Tensor, points: int, margin: float) -> Tensor:
    """Points of a square grid on the plane through three examples.

    The first axis leads from the first example to the second; the second axis is the rest of the third, orthogonal to
    it. The grid covers the three examples and a margin.

    Args:
        corners: [3, ...].
        points: Points on each side.
        margin: Distance of the border to the examples, as a share of their extent along an axis.

    Returns:
        [points * points, ...], row by row.

    Example:
        >>> corners = torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 4.0, 1.0]])
        >>> plane(corners, 2, 0.0)
        tensor([[0., 0., 1.],
                [2., 0., 1.],
                [0., 4., 1.],
                [2., 4., 1.]])
    """
    flat = corners.flatten(1)
    first, rest = flat[1] - flat[0], flat[2] - flat[0]
    squared = first.dot(first)
    along = rest.dot(first) / squared.clamp(min=1e-12)
    second = rest - along * first
    xs = [0.0, 1.0, float(along)]
    low, high = min(xs), max(xs)
    border = margin * (high - low)
    x = torch.linspace(low - border, high + border, points).to(flat)
    y = torch.linspace(-margin, 1 + margin, points).to(flat)
    grid = flat[0] + y[:, None, None] * second + x[None, :, None] * first
    return grid.reshape(points * points, *corners.shape[1:])
