"""SimKD: the student reuses the teacher's classifier and learns the features that it reads."""

import copy
from typing import Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.ranges import PositiveInt
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.adapters import block
from kdx.losses.base.checks import require_map
from kdx.losses.base.heads import linear_head, require_width
from kdx.methods.distill import Distill, Distilled
from kdx.models.probe import probe


class ReusedClassifier(nn.Module):
    """A network whose last map is projected to another network's channels and classified by the other's classifier.

    Its features are the network's, except that `final` is the projected map and `pooled` its mean, so that
    `head(pooled)` gives the logits.

    Args:
        net: The network; its own classifier is unused and frozen.
        head: The other's classifier; copied and frozen.
        role: The network's last map.
        shape: Of that map, (C, H, W).
        size: Height and width to which a larger map is pooled.
        reduction: Channels of the other's map divided by those inside the projector.
    """

    def __init__(
        self,
        net: nn.Module,
        head: nn.Linear,
        role: str,
        shape: tuple[int, int, int],
        size: tuple[int, int],
        reduction: PositiveInt,
    ):
        super().__init__()
        self.net, self.role = net, role
        own = getattr(net, "head", None)
        if isinstance(own, nn.Module):
            own.requires_grad_(False)
        inner = max(1, head.in_features // reduction)
        self.projector = nn.Sequential(
            *block(shape[0], inner, 1), *block(inner, inner, 3), *block(inner, head.in_features, 1)
        )
        self.head = copy.deepcopy(head).requires_grad_(False)
        self.size = min(shape[1], size[0]), min(shape[2], size[1])

    def forward(self, x: Tensor) -> Outputs:
        outputs = self.net(x)
        last = outputs.feature(self.role)
        last = last if last.shape[2:] == self.size else F.adaptive_avg_pool2d(last, self.size)
        projected = self.projector(last)
        pooled = projected.mean((2, 3))
        return Outputs(self.head(pooled), {**outputs.features, "final": projected, "pooled": pooled})


class SimKD(Distill):
    """Runs the student with a projector and the teacher's classifier; student and projector learn.

    The deliverable is a `ReusedClassifier`, the student with both. Its weights are named `net.*`, `projector.*` and
    `head.*`.

    Args:
        student_role: The student's last map.
        teacher_role: The teacher's last map, whose mean its classifier reads.
        reduction: Channels of the teacher's map divided by those inside the projector.
        own: As in `Distill`; the terms see the projected map as the student's `final`.

    Raises:
        UserError: As in `Distill`; or one network has no last map, or the teacher no linear classifier of it.

    References:
        Chen, Mei, Zhang, Wang, Feng, Chen, "Knowledge Distillation with the Reused Teacher Classifier", 2022.
        https://arxiv.org/abs/2203.14001
    """

    tasks = ONLY_CLASSES
    student: ReusedClassifier

    def __init__(self, student_role: str, teacher_role: str, reduction: PositiveInt, **own: Unpack[Distilled]):
        name, student, teacher, spec = "SimKD", own["student"], own["teacher"], own["spec"]
        try:
            mine = probe(student, spec.inputs).feature(student_role, "student")
            theirs = probe(teacher, spec.inputs).feature(teacher_role, "teacher")
            shape = require_map(mine, student_role, "student", name)
            channels, *size = require_map(theirs, teacher_role, "teacher", name)
            head = linear_head(teacher, "teacher", name)
            require_width(head, channels, teacher_role, "teacher", name)
        except ValueError as error:
            raise UserError(f"the student cannot take over this teacher's classifier: {error}") from error
        reused = ReusedClassifier(student, head, student_role, shape, (size[0], size[1]), reduction)
        super().__init__(**{**own, "student": reused})
