"""OFD: features before the ReLU, with a margin and a partial distance."""

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.adapters import pointwise
from kdx.losses.base.heads import holder_of
from kdx.losses.base.memory_format import examples
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Pairs, Roles, inner_pairs
from kdx.losses.features.at import to_common_size

RARELY = 1e-3
"""Below this probability of a negative value, the margin is three standard deviations below 0."""


def margins(norm: nn.BatchNorm2d) -> Tensor:
    """Expected negative value of each channel, for a Gaussian with the mean and deviation of its batch norm.

    `E[x | x < 0]` for x ~ N(bias, weight^2), and -3 |weight| where x is hardly ever negative. The margin of a channel
    without spread is its constant, 0 where the constant is positive.

    Args:
        norm: The batch norm before the ReLU.

    Returns:
        [C].

    Example:
        The mean of the negative half of a standard normal distribution is -sqrt(2 / pi).

        >>> torch.allclose(margins(nn.BatchNorm2d(1)), -torch.tensor([2 / torch.pi]).sqrt())
        True
    """
    std, mean = norm.weight.detach().double().abs(), norm.bias.detach().double()
    spread = std.clamp(min=1e-12)
    below = torch.special.ndtr(-mean / spread)
    density = torch.exp(-0.5 * (mean / spread) ** 2) / (2 * torch.pi) ** 0.5
    margin = torch.where(below > RARELY, mean - std * density / below.clamp(min=RARELY), -3 * std)
    return margin.to(norm.weight.dtype)


@full_precision
def partial_distance(student_features: Tensor, teacher_features: Tensor, margin: Tensor) -> Tensor:
    """Squared difference from the teacher's `max(t, margin)`, summed; 0 where both are below their target.

    Where the teacher is positive, every difference counts. Elsewhere only a student above the target counts.

    Args:
        student_features: Before the ReLU, [B, C, H, W], in the teacher's shape.
        teacher_features: Before the ReLU, [B, C, H, W]; gets no gradient.
        margin: Negative number of each channel, [C].

    Returns:
        [B].

    References:
        Heo, Kim, Yun, Park, Kwak, Choi, "A Comprehensive Overhaul of Feature Distillation", 2019.
        https://arxiv.org/abs/1904.01866

    Example:
        >>> student, teacher = torch.tensor([-5.0, 0.0, 1.0]), torch.tensor([-3.0, -3.0, 3.0])
        >>> maps = (x.view(1, 3, 1, 1) for x in (student, teacher))
        >>> partial_distance(*maps, margin=torch.full((3,), -1.0))  # 0 + 1 + 4
        tensor([5.])
    """
    theirs = teacher_features.detach()
    gaps = examples(student_features - torch.maximum(theirs, margin.to(theirs.dtype)[:, None, None]))
    with torch.no_grad():
        counted = torch.where(examples(theirs) > 0, gaps, gaps.relu())
    # the value is counted^2 and its derivative 2 counted; two products replace a graph of masks
    return 2 * torch.linalg.vecdot(counted, gaps) - counted.square().sum(1)


class OFD(Paired):
    """Partial distance of several maps; each counts half as much as the next deeper one.

    A 1 x 1 convolution and a batch norm map the student's feature to the teacher's channels; the larger of the two maps
    is pooled to the smaller one. The margins are computed once, from the teacher's batch norms; the teacher stays in
    evaluation mode (one public implementation trains it along).

    Args:
        roles: Maps before their ReLU, from shallow to deep: a list names the same roles on both sides, a
            mapping goes from the student's role to the teacher's. None for all stages but the stem.
    """

    called = "OFD"

    def __init__(self, roles: Roles | None):
        super().__init__(roles)
        self.connectors = nn.ModuleList()
        self._norms: tuple[dict[str, nn.BatchNorm2d]] = ({},)

    def default_pairs(self, student: Shapes, teacher: Shapes) -> Pairs:
        return inner_pairs(student, teacher, preact="both")

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        found = holder_of(teacher, "preact_norms")
        self._norms = ({} if found is None else found.preact_norms(),)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        (norms,) = self._norms
        self.connectors = nn.ModuleList()
        for i, (mine, theirs) in enumerate(self.maps(student, teacher)):
            role = self.pairs[i][1]
            if role not in norms:
                raise ValueError(
                    f"OFD takes its margins from the batch norm that ends in the teacher's '{role}', and this teacher "
                    f"names none there (it names: {', '.join(norms) or 'none at all'})"
                )
            self.connectors.append(pointwise(mine[0], theirs[0]))
            self.register_buffer(f"margin{i}", margins(norms[role]), persistent=False)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        deepest = len(self.pairs) - 1
        rows = []
        for i, (mine, theirs) in enumerate(self.features(student, teacher)):
            mine, theirs = to_common_size(mine, theirs)
            row = partial_distance(self.connectors[i](mine), theirs, self.get_buffer(f"margin{i}"))
            rows.append(2.0 ** (i - deepest) * row)
        return torch.stack(rows).sum(0)
