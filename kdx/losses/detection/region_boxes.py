"""Box distillation: a student's boxes of objects follow its teacher's."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_teacher
from kdx.losses.base.numerics import full_precision
from kdx.losses.detection.own import BETA, DetectorTerm, owners, per_example, target


@full_precision
def box_imitation(
    student: Tensor, teacher: Tensor, labels: Tensor, background: int, owner: Tensor, size: int
) -> Tensor:
    """Smooth L1 between two box regressions of the regions of objects, averaged over an example's regions, [size].

    Args:
        student, teacher: Box regression of each class or of all, [N, C, 4] or [N, 1, 4]; the teacher's gets no
            gradient.
        labels: Class of each region; `background` or more, and -1, are left out, [N].
        background: Number of the background class, C.
        owner: Example of each region, [N].
        size: Number of examples.

    References:
        Chen, Choi, Yu, Han, Chandraker, "Learning Efficient Object Detection Models with Knowledge Distillation", 2017
        (the distance; their bound by the teacher's own error is left out)

    Example:
        >>> one, none = torch.ones(2, 1, 4), torch.zeros(2, 1, 4)
        >>> box_imitation(one, none, torch.tensor([0, 3]), 3, torch.tensor([0, 0]), 1)
        tensor([3.7778])
    """
    real = (labels >= 0) & (labels < background)
    rows = torch.arange(len(labels), device=labels.device)
    mine, theirs = (x[rows, labels.clamp(0, x.shape[1] - 1)] for x in (student, teacher.detach()))
    loss = F.smooth_l1_loss(mine, theirs, beta=BETA, reduction="none").sum(1) * real
    return per_example(loss, owner, size) / per_example(real.to(loss.dtype), owner, size).clamp(min=1)


class RegionBoxImitation(DetectorTerm):
    """Distance of the student's boxes from the teacher's, in the regions of objects."""

    needs_teacher = True
    reads = ("regions", "regions.deltas")

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        super().build(student, require_teacher(teacher, type(self).__name__), spec)
        self.background = spec.task.num_outputs

    def teacher_roles(self) -> tuple[str, ...]:
        return self.reads

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        mine, theirs = student.feature("regions.deltas"), teacher.feature("regions.deltas")
        return box_imitation(
            mine, theirs, target(student, "regions.labels"), self.background, owners(student), len(batch)
        )
