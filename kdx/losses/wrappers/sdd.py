"""SDD: distillation of the logits that the networks' classifiers give to parts of the image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative, PositiveInt
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_map, require_teacher
from kdx.losses.base.heads import local_classifier
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.roles import resolve
from kdx.losses.base.term import Term
from kdx.losses.base.wrapper import Wrapper
from kdx.losses.wrappers.over_rows import row_batch

ROLE = "final"
"""The last map, whose mean over H and W is what the classifier reads."""


def pyramid(features: Tensor, scales: Sequence[int]) -> Tensor:
    """Means over the cells of an s x s grid for each scale s: maps [B, D, H, W] to [B, R, D].

    A scale finer than the map repeats its cells.

    Example:
        >>> pyramid(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]), [1, 2]).flatten()
        tensor([4., 1., 3., 5., 7.])
    """
    grids = [F.adaptive_avg_pool2d(features, scale).flatten(2) for scale in scales]
    return torch.cat(grids, 2).transpose(1, 2)


@full_precision
def local_logits(features: Tensor, weight: Tensor, bias: Tensor | None, scales: Sequence[int]) -> Tensor:
    """Logits that a classifier gives to each region of a map.

    At scale 1 these are the network's logits, if its classifier reads the map's mean.

    Args:
        features: [B, D, H, W].
        weight: Weight of the classifier, [C, D].
        bias: Bias of the classifier, [C], or None.
        scales: Sides of the grids.

    Returns:
        [B, R, C], with R the sum of the squared scales.

    References:
        Wei, Luo, Luo, "Scale Decoupled Distillation", 2024. https://arxiv.org/abs/2403.13512

    Example:
        >>> maps, head = torch.randn(2, 4, 8, 8), nn.Linear(4, 5)
        >>> whole = local_logits(maps, head.weight, head.bias, [1])[:, 0]
        >>> torch.allclose(whole, head(maps.mean((2, 3))), atol=1e-6)
        True
    """
    return F.linear(pyramid(features, scales), weight, bias)


def disagrees(local: Tensor, whole: Tensor, labels: Tensor) -> Tensor:
    """Mask of the regions of which exactly one of region and whole image is classified correctly.

    Args:
        local: The teacher's logits of regions, [B, R, C].
        whole: The teacher's logits of the images, [B, C].
        labels: Class indices [B].

    Returns:
        Bool [B, R].

    Example:
        >>> regions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> disagrees(regions, torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        tensor([[False,  True]])
    """
    return (local.argmax(2) == labels[:, None]) != (whole.argmax(1) == labels)[:, None]


class SDD(Wrapper):
    """Another term on the logits of each region, averaged over regions.

    Regions on which the teacher is right while it is wrong about the image, or the reverse, carry information that the
    image as a whole does not, and count more. Both classifiers are the networks' own; gradients reach the student's.

    Args:
        term: The inner term, one that treats examples independently, such as KD, DKD or NKD.
        scales: Sides of the grids; [1, 2, 4] are 21 regions.
        disagreement_weight: Weight of a region that disagrees with the whole image; others weigh 1. A number or a
            schedule.
    """

    def __init__(self, term: Term, scales: Sequence[PositiveInt], disagreement_weight: NonNegative | Schedule):
        super().__init__(term)
        if not scales:
            raise ValueError("SDD needs at least one scale, such as [1, 2, 4]")
        self.scales = tuple(scales)
        self.disagreement_weight = disagreement_weight
        # a tuple, so that they do not become submodules: they belong to the networks
        self._networks: tuple[nn.Module | None, ...] = (None, None)
        self._heads: tuple[nn.Linear, ...] = ()
        self._roles = (ROLE, ROLE)

    def student_roles(self) -> tuple[str, ...]:
        return (self._roles[0], *self.term.student_roles())

    def teacher_roles(self) -> tuple[str, ...]:
        return (self._roles[1], *self.term.teacher_roles())

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self._networks = (student, teacher)
        super().attach(student, teacher)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = require_teacher(teacher, "SDD")
        require_labels(spec, "SDD")
        sides = ((student, "student"), (teacher, "teacher"))
        self._roles = (resolve(ROLE, student, "student"), resolve(ROLE, teacher, "teacher"))
        channels = [require_map(of.feature(r), r, w, "SDD")[0] for (of, w), r in zip(sides, self._roles, strict=True)]
        self._heads = tuple(
            local_classifier(network, role, width, whose, "SDD")
            for network, role, width, (_, whose) in zip(self._networks, self._roles, channels, sides, strict=True)
        )
        super().build(student, teacher, spec)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        mine, theirs = (
            local_logits(outputs.feature(role), head.weight, head.bias, self.scales)
            for outputs, role, head in zip((student, teacher.detach()), self._roles, self._heads, strict=True)
        )
        theirs = theirs.detach()
        size, regions, _ = mine.shape
        owner = torch.arange(size, device=mine.device).repeat_interleave(regions)
        parts = Outputs(mine.flatten(0, 1)), Outputs(theirs.flatten(0, 1))
        rows = self.term(*parts, row_batch(batch, owner), progress).view(size, regions)
        apart = disagrees(theirs, teacher.logits, batch.labels)
        return torch.where(apart, at(self.disagreement_weight, progress) * rows, rows).mean(1)
