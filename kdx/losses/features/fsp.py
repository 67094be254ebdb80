"""FSP: the products of the features of consecutive layers."""

from itertools import pairwise

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import positions
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Pairs, Roles, inner_pairs
from kdx.losses.features.at import to_common_size


@full_precision
def flow(shallow: Tensor, deep: Tensor) -> Tensor:
    """Inner products of two layers' channels, averaged over positions; the larger map is pooled to the smaller one.

    Args:
        shallow: [B, C, H, W].
        deep: [B, D, H', W'].

    Returns:
        [B, D, C].

    Example:
        >>> flow(torch.ones(1, 2, 4, 4), torch.full((1, 3, 4, 4), 2.0)).shape
        torch.Size([1, 3, 2])
    """
    shallow, deep = to_common_size(shallow, deep)
    places = shallow.shape[2] * shallow.shape[3]
    return positions(deep).mT @ positions(shallow) / places


class FSP(Paired):
    """Squared difference of the flow matrices of consecutive maps, averaged over entries and summed over pairs of maps.

    Student and teacher must have the same channels at each map, as in the paper; the sizes may differ.

    Args:
        roles: At least two maps, from shallow to deep: a list names the same roles on both sides, a mapping
            goes from the student's role to the teacher's. None for the stem, where both have one, and all stages.

    References:
        Yim, Joo, Bae, Kim, "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
        Transfer Learning", 2017. https://doi.org/10.1109/CVPR.2017.754
    """

    called = "FSP"

    def __init__(self, roles: Roles | None):
        super().__init__(roles)
        if roles is not None and len(self.pairs) < 2:
            raise ValueError("FSP compares flows between maps and needs at least two roles")

    def default_pairs(self, student: Shapes, teacher: Shapes) -> Pairs:
        return inner_pairs(student, teacher, stem=True)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        maps = self.maps(student, teacher)
        if len(maps) < 2:
            raise ValueError("FSP compares flows between maps and needs at least two roles")
        for (mine, theirs), (role, other) in zip(maps, self.pairs, strict=True):
            if mine[0] != theirs[0]:
                raise ValueError(
                    f"FSP compares channels one by one, but the student's '{role}' has {mine[0]} and the teacher's "
                    f"'{other}' {theirs[0]}; take a pair of the same widths"
                )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        flows = [flow(a, b) - flow(c, d) for (a, c), (b, d) in pairwise(self.features(student, teacher))]
        return torch.stack([gap.square().mean((1, 2)) for gap in flows]).sum(0)
