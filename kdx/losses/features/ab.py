"""AB: the signs of the teacher's neurons before the ReLU, with a margin."""

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import examples
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Pairs, Roles, inner_pairs
from kdx.losses.features.fitnet import map_adapter


@full_precision
def activation_boundaries(student_features: Tensor, teacher_features: Tensor, margin: float) -> Tensor:
    """Squared distance of each neuron to the teacher's side of the boundary, by a margin; summed over neurons.

    `(s + m)^2` where the teacher's neuron is inactive (at most 0) and s > -m; `(s - m)^2` where it is active and s <=
    m; 0 elsewhere.

    Args:
        student_features: Before the activation, [B, ...], in the teacher's shape.
        teacher_features: Before the activation, [B, ...]; gets no gradient.
        margin: m.

    Returns:
        [B].

    References:
        Heo, Lee, Yun, Choi, "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden
        Neurons", 2019. https://arxiv.org/abs/1811.03233

    Example:
        >>> activation_boundaries(torch.tensor([[2.0, -3.0, 0.0]]), torch.tensor([[1.0, -1.0, 1.0]]), 1.0)
        tensor([1.])
    """
    active = teacher_features.detach() > 0
    beyond = torch.where(active, margin - student_features, student_features + margin).relu()
    return examples(beyond).square().sum(1)


class AB(Paired):
    """Activation boundaries of several maps; each map counts half as much as the next deeper one.

    Where shapes differ, a convolution and a batch norm map the student's feature to the teacher's shape.

    Args:
        roles: Maps before their activation, from shallow to deep: a list names the same roles on both sides,
            a mapping goes from the student's role to the teacher's. None for all stages but the stem, as published.
        margin: Required distance from the boundary; a number or a schedule.
    """

    called = "AB"

    def __init__(self, roles: Roles | None, margin: NonNegative | Schedule):
        super().__init__(roles)
        self.margin = margin
        self.connectors = nn.ModuleList()

    def default_pairs(self, student: Shapes, teacher: Shapes) -> Pairs:
        return inner_pairs(student, teacher, preact="both")

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        # the adapter of FitNet without its ReLU, which would hide the boundary
        self.connectors = nn.ModuleList(
            nn.Identity() if mine == theirs else map_adapter(mine, theirs)[:2]
            for mine, theirs in self.maps(student, teacher)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        deepest, margin = len(self.pairs) - 1, at(self.margin, progress)
        rows = [
            2.0 ** (i - deepest) * activation_boundaries(connector(mine), theirs, margin)
            for i, (connector, (mine, theirs)) in enumerate(
                zip(self.connectors, self.features(student, teacher), strict=True)
            )
        ]
        return torch.stack(rows).sum(0)
