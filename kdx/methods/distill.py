"""A frozen teacher and a sum of terms: most of the literature is a YAML file over this one class."""

from collections.abc import Mapping

import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.teacher import ask
from kdx.core.types import Batch, DataSpec, Outputs, Shapes, Step
from kdx.losses.base.term import Term
from kdx.models.probe import probe


class Distill(Method):
    """Runs student and teacher on the same inputs, the teacher without gradients, and sums terms.

    Args:
        student: A network that returns `Outputs`.
        teacher: A frozen network that returns `Outputs`.
        spec: Facts of the training data.
        terms: Terms by name; those with adapters build them here, before there is an optimiser.
        weights: A number or a schedule for each term, under the same names.
        temperature: The temperature that the terms share by interpolation, logged where it is a
            schedule; None for methods without one.

    Raises:
        UserError: Terms and weights have different names, or a term cannot work with this pair.
    """

    tasks = None

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
    ):
        super().__init__()
        stray = terms.keys() ^ weights.keys()
        if stray:
            raise UserError(f"terms and weights must have the same names; on one side only: {', '.join(sorted(stray))}")
        self.student, self.teacher = student, teacher
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)
        self.temperature = temperature
        self._listens = any(term.needs_teacher for term in terms.values())
        shapes = self.probe(spec)
        self._check_outputs(*shapes)
        for name, term in terms.items():
            try:
                term.attach(student, teacher)
                term.build(*shapes, spec)
            except ValueError as error:
                raise UserError(f"the term '{name}' cannot be built for this pair: {error}") from error

    @staticmethod
    def _check_outputs(student: Shapes, teacher: Shapes) -> None:
        if student.logits != teacher.logits:
            raise UserError(
                f"the teacher has {teacher.logits[-1]} outputs and the student {student.logits[-1]}; they must be equal"
            )

    def models(self) -> Mapping[str, nn.Module]:
        return {"student": self.student, "teacher": self.teacher}

    def probe(self, spec: DataSpec) -> tuple[Shapes, Shapes]:
        """What the terms will be given of student and teacher, in shapes."""
        return probe(self.student, spec.inputs), probe(self.teacher, spec.inputs)

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs]:
        """What the terms are given of student and teacher, in full precision."""
        student = self.student(batch.inputs).float()
        # a student alone is measured against a teacher that it need not run
        return student, ask(self.teacher, batch).float() if self._listens else student.detach()

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student, teacher = self.outputs(batch)
        with torch.autocast(batch.device.type, enabled=False):
            terms = {name: term(student, teacher, batch, progress).mean() for name, term in self.terms.items()}
        report = {}
        if isinstance(self.temperature, Schedule):
            report["temperature"] = torch.tensor(at(self.temperature, progress))
        return Step(terms, report, student.detach())
