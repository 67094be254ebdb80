"""A frozen teacher and a sum of terms: most methods of the literature are a YAML file over this class."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict, Unpack

from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs, Shapes, Step
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, Weight
from kdx.core.spec import DataSpec
from kdx.core.teacher import teacher_outputs
from kdx.losses.base.heads import holder_of
from kdx.losses.base.term import Term
from kdx.methods.term_sum import TermSum, temperature_report
from kdx.models.probe import probe


class Distilled(TypedDict):
    """The arguments of `Distill`, which its subclasses accept beside their own."""

    student: nn.Module
    teacher: nn.Module
    spec: DataSpec
    terms: Mapping[str, Term]
    weights: Mapping[str, Weight]
    temperature: Positive | Schedule | None


class Distill(TermSum):
    """Runs student and teacher on the same inputs, the teacher without gradients, and sums terms.

    Args:
        student: A network that returns `Outputs`.
        teacher: A frozen network that returns `Outputs`.
        spec: Facts of the training data.
        terms: Terms by name. Terms with adapters build them here, before the optimiser exists.
        weights: A number or a schedule for each term, under the same names.
        temperature: As in `TermSum`.

    Raises:
        UserError: Terms and weights have different names, or a term does not work with this pair.
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
        super().__init__(student, terms, weights, temperature)
        self.teacher = teacher
        self._needs_teacher = any(term.needs_teacher for term in terms.values())
        shapes = self.probe(spec)
        self._check_outputs(*shapes)
        self.build_terms(teacher, shapes, spec)

    @staticmethod
    def _check_outputs(student: Shapes, teacher: Shapes) -> None:
        if student.logits != teacher.logits:
            raise UserError(
                f"the teacher has {teacher.logits[-1]} outputs and the student {student.logits[-1]}; they must be equal"
            )

    def models(self) -> Mapping[str, nn.Module]:
        return {"student": self.student, "teacher": self.teacher}

    def probe(self, spec: DataSpec) -> tuple[Shapes, Shapes]:
        """Shapes of the outputs of student and teacher that the terms receive."""
        return probe(self.student, spec.inputs), probe(self.teacher, spec.inputs)

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs]:
        """Outputs of student and teacher that the terms receive, in full precision."""
        student = self.student(batch.inputs).float()
        # where no term reads the teacher, it does not run
        return student, teacher_outputs(self.teacher, batch).float() if self._needs_teacher else student.detach()

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student, teacher = self.outputs(batch)
        terms = self.values(student, teacher, batch, progress)
        return Step(terms, temperature_report(self.temperatures, progress), student.detach())


class SecondInputs(Distill):
    """A `Distill` with a second set of terms, computed on other inputs than the batch's.

    Attributes:
        option: Name of the constructor's argument that holds the second set, for messages.
    """

    option: ClassVar[str]

    def __init__(self, second: Mapping[str, Term], **own: Unpack[Distilled]):
        shared = own["terms"].keys() & second.keys()
        if shared:
            raise UserError(
                f"terms and {self.option} must have names of their own; both have: {', '.join(sorted(shared))}"
            )
        self._first, self._second = tuple(own["terms"]), tuple(second)
        super().__init__(**{**own, "terms": {**own["terms"], **second}})


def differentiable(teacher: nn.Module, purpose: str) -> Any:
    """The wrapped network with `through_inputs`, a context in which a teacher passes gradients to its inputs.

    Args:
        teacher: A teacher, in any wrappers.
        purpose: What the gradients are for, for the message.

    Raises:
        UserError: The teacher has no derivatives.
    """
    found = holder_of(teacher, "through_inputs")
    if found is None:
        raise UserError(f"{purpose} needs the teacher's derivatives, and a {type(teacher).__name__} has none")
    return found
