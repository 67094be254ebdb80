"""A student that learns to pass for its teacher."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.task import ONLY_CLASSES
from kdx.core.types import Batch, DataSpec, Outputs, Shapes, Step, Turn
from kdx.losses.base.term import Term
from kdx.losses.online.discriminator import Discriminator, deception, discrimination
from kdx.methods.distill import Distill

TERMS = ("discriminator", "adversarial")


class Adversarial(Distill):
    """Runs student and teacher on the batch, and a discriminator on what each puts out, in two turns.

    The discriminator learns first, from constant rows; then the student, from its terms and from what the
    discriminator, as it has become, makes of it.

    Args:
        student, teacher, spec, temperature: As in `Distill`.
        terms: Terms of the student's turn beside the adversarial one.
        weights: A number or a schedule for each of them, for "adversarial" and for "discriminator".
        role: What the discriminator sees: "logits", "probs" (their softmax) or a feature. A student's feature of
            another size than the teacher's is mapped to it by a linear layer that learns with the student.
        hidden: Width of each hidden layer of the discriminator.

    Raises:
        UserError: As in `Distill`; or one of the two networks does not have the feature.

    References:
        Belagiannis, Farshad, Galasso, "Adversarial Network Compression", 2018. https://arxiv.org/abs/1803.10750
        Xu, Hsu, Huang, "Training Shallow and Thin Networks for Acceleration via Knowledge Distillation with
        Conditional Adversarial Networks", 2018. https://arxiv.org/abs/1709.00513
    """

    tasks = ONLY_CLASSES
    needs_turns = True

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
        role: str,
        hidden: Sequence[PositiveInt],
    ):
        missing = [name for name in TERMS if name not in weights]
        if missing:
            raise UserError(f"method.weights has no '{missing[0]}', which this method cannot do without")
        own = {name: weight for name, weight in weights.items() if name not in TERMS}
        super().__init__(student, teacher, spec, terms, own, temperature)
        self.weights, self.role = dict(weights), role
        self._listens = True
        student_shapes, teacher_shapes = self.probe(spec)
        mine, theirs = self._width(student_shapes, "student"), self._width(teacher_shapes, "teacher")
        self.adapter = nn.Identity() if mine == theirs else nn.Linear(mine, theirs)
        self.discriminator = Discriminator(theirs, list(hidden))

    def parties(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"discriminator": (self.discriminator,), "student": (self.student, self.terms, self.adapter)}

    def turns(self, batch: Batch, progress: Progress) -> Iterator[Turn]:
        student, teacher = self.outputs(batch)
        with torch.autocast(batch.device.type, enabled=False):
            fake, real = self.adapter(self._rows(student)), self._rows(teacher)
            odds = self.discriminator(real), self.discriminator(fake.detach())
            found_out = torch.cat([odds[0] > 0, odds[1] <= 0]).float().mean()
            value = discrimination(*odds).mean()
        yield Turn("discriminator", Step({"discriminator": value}, {"discriminator/accuracy": found_out}))
        with torch.autocast(batch.device.type, enabled=False):
            terms = {name: term(student, teacher, batch, progress).mean() for name, term in self.terms.items()}
            terms["adversarial"] = deception(self.discriminator(fake)).mean()
        report = {}
        if isinstance(self.temperature, Schedule):
            report["temperature"] = torch.tensor(at(self.temperature, progress))
        yield Turn("student", Step(terms, report, student.detach()))

    def _width(self, shapes: Shapes, whose: str) -> int:
        if self.role in ("logits", "probs"):
            return math.prod(shapes.logits)
        try:
            return math.prod(shapes.feature(self.role, whose))
        except ValueError as error:
            raise UserError(f"the discriminator cannot see this pair: {error}") from error

    def _rows(self, outputs: Outputs) -> Tensor:
        if self.role == "logits":
            return outputs.logits
        return outputs.logits.softmax(1) if self.role == "probs" else outputs.feature(self.role).flatten(1)
