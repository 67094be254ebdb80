"""The student alone, with terms that need no teacher: label smoothing's relatives."""

from collections.abc import Mapping

import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.types import Batch, DataSpec, Step
from kdx.losses.base.checks import require_some_labels
from kdx.losses.base.term import Term
from kdx.models.probe import probe


class Alone(Method):
    """Runs the student on the batch and sums terms that read nothing else; no teacher is loaded or trained.

    Args:
        student: A network that returns `Outputs`.
        spec: Facts of the training data.
        terms: Terms by name, none of which needs a teacher.
        weights: A number or a schedule for each term, under the same names.
        temperature: The temperature that the terms share by interpolation, logged where it is a
            schedule; None for methods without one.

    Raises:
        UserError: Terms and weights have different names, or a term needs a teacher or cannot work with
            this student.
    """

    tasks = None
    uses_teacher = False
    frozen = ()

    def __init__(
        self,
        student: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
    ):
        super().__init__()
        stray = terms.keys() ^ weights.keys()
        if stray:
            raise UserError(f"terms and weights must have the same names; on one side only: {', '.join(sorted(stray))}")
        listening = [name for name, term in terms.items() if term.needs_teacher]
        if listening:
            raise UserError(
                f"the term '{listening[0]}' needs a teacher, but this method has none (kdx.methods.distill.Distill has)"
            )
        require_some_labels(spec, "a student alone")
        self.student = student
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)
        self.temperature = temperature
        shapes = probe(student, spec.inputs)
        for name, term in terms.items():
            try:
                term.attach(student, None)
                term.build(shapes, None, spec)
            except ValueError as error:
                raise UserError(f"the term '{name}' cannot be built for this student: {error}") from error

    def models(self) -> Mapping[str, nn.Module]:
        return {"student": self.student}

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student = self.student(batch.inputs).float()
        with torch.autocast(batch.device.type, enabled=False):
            # terms without a teacher do not read the second argument
            terms = {name: term(student, student.detach(), batch, progress).mean() for name, term in self.terms.items()}
        report = {}
        if isinstance(self.temperature, Schedule):
            report["temperature"] = torch.tensor(at(self.temperature, progress))
        return Step(terms, report, student.detach())
