"""NST: the maximum mean discrepancy between the channels' activation maps."""

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import channel_products, positions
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Roles
from kdx.losses.features.at import to_common_size


def _lengths(products: Tensor) -> Tensor:
    """One over the length of each channel, from the channels' products [B, C, C]; 0 for a dead channel: [B, C]."""
    squares = products.diagonal(dim1=1, dim2=2)
    alive = squares > 0
    return torch.where(alive, torch.where(alive, squares, 1.0).rsqrt(), 0.0)


def _kernel(products: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Mean of <x, y>^2 over channels x and y of length 1, from products [B, C, C'] and one over the lengths: [B]."""
    return (products * left[:, :, None] * right[:, None]).square().mean((1, 2))


def _scatter(maps: Tensor) -> Tensor:
    """Mean over channels of x x' for x of length 1, from maps [B, P, C]: [B, P, P]."""
    return channel_products((unit(maps, 1) / maps.shape[2] ** 0.5).mT)


@full_precision
def neuron_selectivity(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Squared MMD, kernel <x, y>^2, between the channels' activation maps, each scaled to length 1.

    The larger map is pooled to the smaller one first; the numbers of channels may differ.

    Args:
        student_features: [B, C, H, W].
        teacher_features: [B, C', H', W']; gets no gradient.

    Returns:
        [B].

    References:
        Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017.
        https://arxiv.org/abs/1707.01219

    Example:
        The discrepancy does not depend on the order or the scale of the channels.

        >>> maps = torch.rand(2, 3, 4, 4)
        >>> neuron_selectivity(2 * maps.flip(1), maps).abs().max() < 1e-6
        tensor(True)
    """
    pair = to_common_size(student_features, teacher_features.detach())
    mine, theirs = (positions(features) for features in pair)
    if mine.shape[1] < min(mine.shape[2], theirs.shape[2]):
        # the sum of <x, y>^2 over channels is <X X', Y Y'>, so the three sums are one square
        return (_scatter(theirs) - _scatter(mine)).square().sum((1, 2))
    # scaling to length 1 is applied to the products, which are smaller than the maps
    ours, others = channel_products(mine), channel_products(theirs)
    a, b = _lengths(ours), _lengths(others)
    return _kernel(others, b, b) + _kernel(ours, a, a) - 2 * _kernel(theirs.mT @ mine, b, a)


class NST(Paired):
    """Neuron selectivity transfer, summed over pairs of maps.

    Args:
        roles: Maps to compare: a list names the same roles on both sides, a mapping goes from the student's
            role to the teacher's. None for all stages but the stem, as published.
    """

    called = "NST"

    def __init__(self, roles: Roles | None):
        super().__init__(roles)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.maps(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        rows = [neuron_selectivity(mine, theirs) for mine, theirs in self.features(student, teacher)]
        return torch.stack(rows).sum(0)
