"""The contract of a term."""

from typing import ClassVar

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.core.task import ONLY_CLASSES, Kinds
from kdx.losses.base.checks import require_rows


class Term(nn.Module):
    """A loss: maps the outputs of student and teacher, and a batch, to a value per example.

    A term binds a pure function of tensors to the logits or features that it reads and to its hyperparameters. It
    does not weight its value, reduce it over the batch, optimise or log. A term with parameters (adapters, variances)
    creates them in `build`, before the optimiser exists.

    Attributes:
        tasks: Kinds of tasks that the term fits, see `kdx.core.task`; None for all, as for a term on features.
        needs_teacher: Whether the term reads the teacher's outputs.
        divisible: Whether an example's value is the same in any part of the batch, so that each of several processes
            may take a part. False where a term relates examples to each other, or keeps a state of earlier ones.
        reads_logits: Whether the term reads logits. They must then be one vector per example, [B, C].
        skips_unlabelled: Whether an example without a label has the value 0 and is left out of the mean.
        keyed_by_index: Whether the term keeps a state per training example, found by `Batch.index`.
    """

    tasks: ClassVar[Kinds | None] = ONLY_CLASSES
    needs_teacher: bool = True
    divisible: bool = True
    reads_logits: bool = True
    skips_unlabelled: bool = False
    keyed_by_index: bool = False

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch, progress: Progress) -> Tensor:
        """Check the rank of the logits, then call `forward`.

        Raises:
            ValueError: The term reads logits, and they are not [B, C].
        """
        if self.reads_logits:
            require_rows(student.logits, "student", type(self).__name__)
            if teacher is not None and self.needs_teacher:
                require_rows(teacher.logits, "teacher", type(self).__name__)
        return super().__call__(student, teacher, batch, progress)

    def student_roles(self) -> tuple[str, ...]:
        """Roles of the student's features that the term reads."""
        return ()

    def teacher_roles(self) -> tuple[str, ...]:
        """Roles of the teacher's features that the term reads."""
        return ()

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Store the parts of the networks that the term uses, such as a classifier (`head`); called before `build`.

        The references must not become submodules: the method trains and saves the student, and the teacher is frozen.
        """

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        """Create the parameters that depend on shapes.

        Raises:
            ValueError: The term does not work with these networks or this data set.
        """

    def counted_rows(self, batch: Batch) -> Tensor | None:
        """Number of rows, such as tokens, over which the mean of the values runs, a scalar.

        None where the mean runs over the examples. An update that splits a batch weights the parts by this number.
        """
        return None

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        """A value per example, [B]. Gradients reach the student and the term's own parameters only."""
        raise NotImplementedError
