"""SimKD: the student reuses the teacher's classifier and learns the features that it reads."""

import copy
from collections import ChainMap
from dataclasses import replace
from typing import Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.notice import notice
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.spec import DataSpec
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.adapters import block
from kdx.losses.base.checks import require_map
from kdx.losses.base.heads import classifier_of
from kdx.losses.base.roles import resolve
from kdx.methods.distill import Distill, Distilled
from kdx.models.features.quiet import quiet, random_input
from kdx.models.probe import probe

FINAL = "final"


class ReusedClassifier(nn.Module):
    """A network whose last map is projected to another network's channels and classified by the other's classifier.

    Its features are the network's, except that `final` is the projected map and `pooled` its mean, so that
    `head(pooled)` gives the logits.

    Args:
        net: The network; its own classifier is unused and frozen.
        head: The other's classifier; copied and frozen. A linear layer, or several modules in a row.
        width: Channels that it reads.
        role: The network's last map.
        shape: Of that map, (C, H, W).
        size: Height and width to which a larger map is pooled.
        reduction: Channels of the other's map divided by those inside the projector.
        signed: Whether the other's map has negative values, which the projector's last ReLU could not reach; without
            it then.
    """

    def __init__(
        self,
        net: nn.Module,
        head: nn.Module,
        width: int,
        role: str,
        shape: tuple[int, int, int],
        size: tuple[int, int],
        reduction: PositiveInt,
        signed: bool,
    ):
        super().__init__()
        self.net, self.role = net, role
        own = getattr(net, "head", None)
        if isinstance(own, nn.Module):
            own.requires_grad_(False)
        inner = max(1, width // reduction)
        last = block(inner, width, 1)
        self.projector = nn.Sequential(
            *block(shape[0], inner, 1), *block(inner, inner, 3), *(last[:-1] if signed else last)
        )
        self.head = copy.deepcopy(head).requires_grad_(False).eval()
        self.size = min(shape[1], size[0]), min(shape[2], size[1])

    def train(self, mode: bool = True) -> Self:
        """Train all but the reused classifier, whose norms keep their statistics."""
        super().train(mode)
        self.head.eval()
        return self

    def forward(self, x: Tensor) -> Outputs:
        outputs = self.net(x)
        last = outputs.feature(self.role)
        last = last if last.shape[2:] == self.size else F.adaptive_avg_pool2d(last, self.size)
        projected = self.projector(last)
        pooled = projected.mean((2, 3))
        logits = self.head(pooled if isinstance(self.head, nn.Linear) else projected)
        return Outputs(logits, {**outputs.features, "final": projected, "pooled": pooled})


class SimKD(Distill):
    """Runs the student with a projector and the teacher's classifier; student and projector learn.

    The deliverable is a `ReusedClassifier`, the student with both. Its weights are named `net.*`, `projector.*` and
    `head.*`.

    Args:
        student_role: The student's last map.
        teacher_role: The teacher's last map, whose mean its classifier reads. Where a teacher has no "final", it is
            "last" if the teacher's classifier reads that map's mean, else the vector that it does read; the terms see
            it as the teacher's `final`.
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
            mine, theirs = probe(student, spec.inputs), probe(teacher, spec.inputs)
            role = resolve(student_role, mine, "student")
            shape = require_map(mine.feature(role, "student"), role, "student", name)
            self._target, head = _target(teacher, teacher_role, theirs, name)
        except ValueError as error:
            raise UserError(f"the student cannot take over this teacher's classifier: {error}") from error
        channels, *size = theirs.feature(self._target, "teacher")
        reused = ReusedClassifier(
            student,
            head,
            channels,
            role,
            shape,
            (size[0], size[1]) if size else (1, 1),
            reduction,
            _signed(teacher, self._target, spec),
        )
        super().__init__(**{**own, "student": reused})

    def probe(self, spec: DataSpec) -> tuple[Shapes, Shapes]:
        student, teacher = super().probe(spec)
        shape = teacher.feature(self._target)
        final = shape if len(shape) == 3 else (*shape, 1, 1)
        return student, replace(teacher, features={**teacher.features, FINAL: final})

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs]:
        student, teacher = super().outputs(batch)
        if self._target == FINAL:
            return student, teacher
        target = teacher.feature(self._target)
        final = target if target.dim() == 4 else target[:, :, None, None]
        return student, replace(teacher, features=ChainMap({FINAL: final}, teacher.features))  # pyright: ignore


def _target(teacher: nn.Module, role: str, shapes: Shapes, name: str) -> tuple[str, nn.Module]:
    """The teacher's feature that its classifier reads, and the classifier."""
    found = resolve(role, shapes, "teacher")
    try:
        shape = shapes.feature(found, "teacher")
        if found != role and len(shape) != 3:
            raise ValueError(f"{found} is no map")
        require_map(shape, found, "teacher", name)
        return found, classifier_of(teacher, found, shape[0], "teacher", name)
    except ValueError:
        vector = next((r for r in ("pre_logits", "pooled") if r in shapes.features), None)
        if role in shapes.features or vector is None:
            raise
    classifier = classifier_of(teacher, vector, shapes.feature(vector)[0], "teacher", name)
    notice(f"the teacher's classifier does not read the mean of '{found}'; {name} learns the vector '{vector}' instead")
    return vector, classifier


def _signed(teacher: nn.Module, role: str, spec: DataSpec) -> bool:
    """Whether the teacher's feature has negative values on random inputs."""
    fake = spec.inputs.fake(2, "cpu")
    device = next((p.device for p in teacher.parameters()), torch.device("cpu"))
    if not isinstance(fake, Tensor):
        return False
    with quiet(teacher, device):
        return bool((teacher(random_input(fake.to(device))).feature(role) < 0).any())
