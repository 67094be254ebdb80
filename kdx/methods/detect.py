"""Detectors that learn from boxes, alone or beside a teacher that answers for the student's regions."""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs, Step
from kdx.core.schedule import Progress
from kdx.core.task import BOXES
from kdx.core.tree import Tree
from kdx.methods.alone import Alone, Untaught
from kdx.methods.distill import Distill, Distilled
from kdx.methods.term_sum import temperature_report

ONLY_BOXES = frozenset({BOXES})
STEP = 1 << 32  # more than the examples of any data set


def learning_inputs(batch: Batch, progress: Progress, salt: Tensor) -> dict[str, Tree]:
    """A batch's inputs with what a detector samples its regions by: boxes, labels, crowds and a number per example.

    The number is a function of the run, the step and the example alone, so that a resumed run, and processes that
    divide the batch, draw the same regions.

    Args:
        batch: Images with targets.
        progress: Of the run.
        salt: Number of the run, int64.

    Raises:
        UserError: The inputs are no mapping of images and sizes.
    """
    if not isinstance(batch.inputs, Mapping):
        raise UserError("a detector reads images with their sizes, and this data set gives single tensors")
    targets = {name: batch.target(name) for name in ("boxes", "box_labels", "crowd")}
    return {**batch.inputs, **targets, "draws": (batch.index + STEP * progress.step) ^ salt}


def new_salt() -> Tensor:
    """A number that differs between runs: drawn when the method is built, kept in checkpoints."""
    return torch.randint(1 << 62, ())


class Detect(Alone):
    """A detector without a teacher: one forward gives its outputs and the regions that the terms compare.

    Args:
        own: student, spec, terms, weights and temperature, as in `Alone`.
    """

    tasks = ONLY_BOXES
    salt: Tensor

    def __init__(self, **own: Unpack[Untaught]):
        super().__init__(**own)
        self.register_buffer("salt", new_salt())

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student: Outputs = self.student(learning_inputs(batch, progress, self.salt)).float()
        terms = self.values(student, student.detach(), batch, progress)
        return Step(terms, temperature_report(self.temperatures, progress), student.detach())


class DetectWithTeacher(Distill):
    """A detector with a frozen teacher, whose logits and boxes are those of the student's own regions.

    Args:
        own: student, teacher, spec, terms, weights and temperature, as in `Distill`.
    """

    tasks = ONLY_BOXES
    salt: Tensor

    def __init__(self, **own: Unpack[Distilled]):
        super().__init__(**own)
        self.register_buffer("salt", new_salt())

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student: Outputs = self.student(learning_inputs(batch, progress, self.salt)).float()
        teacher = asked(self.teacher, batch, student).float() if self._needs_teacher else student.detach()
        terms = self.values(student, teacher, batch, progress)
        return Step(terms, temperature_report(self.temperatures, progress), student.detach())


def asked(teacher: nn.Module, batch: Batch, student: Outputs) -> Outputs:
    """The teacher's outputs for the regions of the student, row by row.

    A one-stage detector has the same rows for any inputs.
    """
    inputs = batch.inputs
    assert isinstance(inputs, Mapping)
    if student.owner is None:
        return teacher(inputs)
    return teacher({**inputs, "regions": student.features["regions"].detach(), "owner": student.owner})
