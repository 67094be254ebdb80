"""A student without a teacher, trained with any terms that need none, such as label smoothing."""

from collections.abc import Mapping
from typing import TypedDict

from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Step
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, Weight
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_some_labels
from kdx.losses.base.term import Term
from kdx.methods.term_sum import TermSum, check_names, temperature_report
from kdx.models.probe import probe


class Untaught(TypedDict):
    """The arguments of `Alone`, which its subclasses accept beside their own."""

    student: nn.Module
    spec: DataSpec
    terms: Mapping[str, Term]
    weights: Mapping[str, Weight]
    temperature: Positive | Schedule | None


class Alone(TermSum):
    """Runs the student on the batch and sums terms that need no teacher; no teacher is loaded or trained.

    Args:
        student: A network that returns `Outputs`.
        spec: Facts of the training data.
        terms: Terms by name, none of which needs a teacher.
        weights: A number or a schedule for each term, under the same names.
        temperature: As in `TermSum`.

    Raises:
        UserError: Terms and weights have different names, or a term needs a teacher or does not work with this
            student.
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
        check_names(terms, weights)
        needing = [name for name, term in terms.items() if term.needs_teacher]
        if needing:
            raise UserError(
                f"the term '{needing[0]}' needs a teacher, but this method has none (kdx.methods.distill.Distill has)"
            )
        require_some_labels(spec, "a student alone")
        super().__init__(student, terms, weights, temperature)
        self.build_terms(None, (probe(student, spec.inputs), None), spec)

    def models(self) -> Mapping[str, nn.Module]:
        return {"student": self.student}

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student = self.student(batch.inputs).float()
        # terms without a teacher do not read the second argument
        terms = self.values(student, student.detach(), batch, progress)
        return Step(terms, temperature_report(self.temperatures, progress), student.detach())
