"""A student that learns to deceive a discriminator between its outputs and its teacher's."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs, Shapes, Step, Turn
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.task import ONLY_CLASSES
from kdx.losses.online.discriminator import Discriminator, deception, discrimination
from kdx.methods.distill import Distill, Distilled
from kdx.methods.term_sum import temperature_report

TERMS = ("discriminator", "adversarial")


class Adversarial(Distill):
    """Runs student and teacher on the batch, and a discriminator on an output of each, in two turns.

    The discriminator learns first, from detached rows. Then the student learns from its terms and from the updated
    discriminator.

    Args:
        role: The discriminator's input: "logits", "probs" (their softmax) or a feature. Where the student's feature
            has another size than the teacher's, a trained linear layer maps it to the teacher's.
        hidden: Width of each hidden layer of the discriminator.
        own: As in `Distill`; the weights also name "adversarial" and "discriminator".

    Raises:
        UserError: As in `Distill`; or one of the two networks does not have the feature.

    References:
        Belagiannis, Farshad, Galasso, "Adversarial Network Compression", 2018. https://arxiv.org/abs/1803.10750
        Xu, Hsu, Huang, "Training Shallow and Thin Networks for Acceleration via Knowledge Distillation with
        Conditional Adversarial Networks", 2018. https://arxiv.org/abs/1709.00513
    """

    tasks = ONLY_CLASSES
    needs_turns = True

    def __init__(self, role: str, hidden: Sequence[PositiveInt], **own: Unpack[Distilled]):
        weights = dict(own["weights"])
        missing = [name for name in TERMS if name not in weights]
        if missing:
            raise UserError(f"method.weights needs a weight for '{missing[0]}', which this method computes")
        super().__init__(**{**own, "weights": {name: w for name, w in weights.items() if name not in TERMS}})
        self.weights, self.role = weights, role
        self._needs_teacher = True
        student_shapes, teacher_shapes = self.probe(own["spec"])
        mine, theirs = self._width(student_shapes, "student"), self._width(teacher_shapes, "teacher")
        self.adapter = nn.Identity() if mine == theirs else nn.Linear(mine, theirs)
        self.discriminator = Discriminator(theirs, list(hidden))

    def parties(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"discriminator": (self.discriminator,), "student": (self.student, self.terms, self.adapter)}

    def turns(self, batch: Batch, progress: Progress) -> Iterator[Turn]:
        student, teacher = self.outputs(batch)
        with torch.autocast(batch.device.type, enabled=False):
            fake, real = self.adapter(self._rows(student)), self._rows(teacher)
            log_odds = self.discriminator(real), self.discriminator(fake.detach())
            accuracy = torch.cat([log_odds[0] > 0, log_odds[1] <= 0]).float().mean()
            value = discrimination(*log_odds).mean()
        yield Turn("discriminator", Step({"discriminator": value}, {"discriminator/accuracy": accuracy}))
        terms = self.values(student, teacher, batch, progress)
        with torch.autocast(batch.device.type, enabled=False):
            terms["adversarial"] = deception(self.discriminator(fake)).mean()
        yield Turn("student", Step(terms, temperature_report(self.temperatures, progress), student.detach()))

    def _width(self, shapes: Shapes, whose: str) -> int:
        if self.role in ("logits", "probs"):
            return math.prod(shapes.logits)
        try:
            return math.prod(shapes.feature(self.role, whose))
        except ValueError as error:
            raise UserError(f"the discriminator cannot read method.role={self.role}: {error}") from error

    def _rows(self, outputs: Outputs) -> Tensor:
        if self.role == "logits":
            return outputs.logits
        return outputs.logits.softmax(1) if self.role == "probs" else outputs.feature(self.role).flatten(1)
