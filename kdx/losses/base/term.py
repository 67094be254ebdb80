"""The contract of a term."""

from typing import ClassVar

from torch import Tensor, nn

from kdx.core.schedule import Progress
from kdx.core.task import ONLY_CLASSES, Kinds
from kdx.core.types import Batch, DataSpec, Outputs, Shapes


class Term(nn.Module):
    """One agreement measure: outputs of student and teacher and a batch go in, a value per example comes out.

    A term binds a pure function of tensors to what it reads (logits, a feature's role) and to its
    numbers. It knows nothing of weights, reductions over the batch, optimisers or logging. Terms with
    parameters (adapters, variances) make them in `build`, before the optimiser exists.

    Attributes:
        tasks: Kinds of tasks that it fits, see `kdx.core.task.Part`; None for all, such as a term of features.
        needs_teacher: Whether it reads the teacher's outputs.
        divisible: Whether an example's value is the same in any part of the batch, so that several processes may each
            take a part. Not where examples are related to each other, or something is kept of those that were seen.
    """

    tasks: ClassVar[Kinds | None] = ONLY_CLASSES
    needs_teacher: bool = True
    divisible: bool = True

    def student_roles(self) -> tuple[str, ...]:
        """Roles of the student's features that this term reads."""
        return ()

    def teacher_roles(self) -> tuple[str, ...]:
        """Roles of the teacher's features that this term reads."""
        return ()

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Note what is needed of the networks themselves, such as a classifier (`head`); called before `build`.

        A term keeps references outside its own parameters: the student is trained and saved by its
        method, and the teacher is neither.
        """

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        """Make what depends on shapes. Raises ValueError, in a sentence, for a pair that cannot work."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        """A value per example, [B]. Gradients reach the student and the term's own parameters only."""
        raise NotImplementedError
