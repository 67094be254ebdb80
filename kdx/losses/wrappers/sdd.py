"""SDD: logits of parts of the image, from the networks' own classifiers, distilled one by one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.ranges import NonNegative, PositiveInt
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.base.checks import require_labels, require_map, require_teacher
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term

ROLE = "final"
"""The last map, whose mean over H and W is what the classifier reads."""


def pyramid(features: Tensor, scales: Sequence[int]) -> Tensor:
    """Means over the cells of an s x s grid for each scale s: maps [B, D, H, W] to [B, R, D].

    A scale finer than the map repeats its cells.
    """
    grids = [F.adaptive_avg_pool2d(features, scale).flatten(2) for scale in scales]
    return torch.cat(grids, 2).transpose(1, 2)


@full_precision
def local_logits(features: Tensor, weight: Tensor, bias: Tensor | None, scales: Sequence[int]) -> Tensor:
    """What a classifier says of each region of a map.

    At scale 1 these are the network's own logits, where the map's mean is what its classifier reads.

    Args:
        features: [B, D, H, W].
        weight: The classifier's, [C, D].
        bias: The classifier's, [C], or None.
        scales: Sides of the grids.

    Returns:
        [B, R, C], with R the sum of the squared scales.

    References:
        Wei, Luo, Luo, "Scale Decoupled Distillation", 2024. https://arxiv.org/abs/2403.13512
    """
    return F.linear(pyramid(features, scales), weight, bias)


def disagrees(local: Tensor, whole: Tensor, labels: Tensor) -> Tensor:
    """Where a region and the whole image are not both right or both wrong.

    Args:
        local: The teacher's logits of regions, [B, R, C].
        whole: Its logits of the images, [B, C].
        labels: Class indices [B].

    Returns:
        Bool [B, R].
    """
    return (local.argmax(2) == labels[:, None]) != (whole.argmax(1) == labels)[:, None]


class SDD(Term):
    """Another term on the logits of each region, mean over regions.

    Regions where the teacher is right and wrong about the image (or the other way about) hold what the
    image as a whole does not say, and count more. Both classifiers are the networks' own; the student's is
    trained through it.

    Args:
        term: The term inside, one that treats examples alone, such as KD, DKD or NKD.
        scales: Sides of the grids; [1, 2, 4] are 21 regions.
        disagreement_weight: Weight of a region that disagrees with the whole; others weigh 1. A number or a
            schedule.
    """

    def __init__(self, term: Term, scales: Sequence[PositiveInt], disagreement_weight: NonNegative | Schedule):
        super().__init__()
        if not scales:
            raise ValueError("SDD needs at least one scale, such as [1, 2, 4]")
        self.term = term
        self.scales = tuple(scales)
        self.disagreement_weight = disagreement_weight
        # a tuple hides them from the module: they belong to the networks
        self._heads: tuple[nn.Module | None, ...] = (None, None)

    def student_roles(self) -> tuple[str, ...]:
        return (ROLE, *self.term.student_roles())

    def teacher_roles(self) -> tuple[str, ...]:
        return (ROLE, *self.term.teacher_roles())

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self._heads = tuple(getattr(net, "head", None) for net in (student, teacher))
        self.term.attach(student, teacher)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = require_teacher(teacher, "SDD")
        require_labels(spec, "SDD")
        channels = [_channels(*side) for side in ((student, "student"), (teacher, "teacher"))]
        for width, whose, head in zip(channels, ("student", "teacher"), self._heads, strict=True):
            if not isinstance(head, nn.Linear) or head.in_features != width:
                raise ValueError(
                    f"SDD asks the {whose}'s classifier about parts of its last map: that must be a linear layer that "
                    f"reads {width} numbers, found {head}"
                )
        self.term.build(student, teacher, spec)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        mine, theirs = (
            local_logits(outputs.feature(ROLE), head.weight, head.bias, self.scales)
            for outputs, head in zip((student, teacher.detach()), self._heads, strict=True)
            if isinstance(head, nn.Linear)
        )
        theirs = theirs.detach()
        size, regions, _ = mine.shape
        labels, index = (t.repeat_interleave(regions) for t in (batch.labels, batch.index))
        parts = Outputs(mine.flatten(0, 1)), Outputs(theirs.flatten(0, 1))
        rows = self.term(*parts, Batch.of_classes(mine.flatten(0, 1), labels, index), progress).view(size, regions)
        apart = disagrees(theirs, teacher.logits, batch.labels)
        return torch.where(apart, at(self.disagreement_weight, progress) * rows, rows).mean(1)


def _channels(shapes: Shapes, whose: str) -> int:
    try:
        shape = shapes.feature(ROLE, whose)
    except ValueError as error:
        raise ValueError(f"SDD needs a classifier that reads the mean of the last map: {error}") from error
    return require_map(shape, ROLE, whose, "SDD")[0]
