"""The contract of a term around another term."""

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Shapes
from kdx.core.spec import DataSpec
from kdx.losses.base.term import Term


class Wrapper(Term):
    """A term that changes the inputs or the value of another term.

    It passes roles, networks and shapes on. The inner term is a submodule, so its parameters and buffers are trained,
    moved and saved.

    Args:
        term: The inner term.
    """

    def __init__(self, term: Term):
        super().__init__()
        self.term = term
        self.needs_teacher = term.needs_teacher
        self.reads_logits = term.reads_logits
        self.skips_unlabelled = term.skips_unlabelled
        self.keyed_by_index = term.keyed_by_index

    def student_roles(self) -> tuple[str, ...]:
        return self.term.student_roles()

    def teacher_roles(self) -> tuple[str, ...]:
        return self.term.teacher_roles()

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.term.attach(student, teacher)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.term.build(student, teacher, spec)

    def counted_rows(self, batch: Batch) -> Tensor | None:
        return self.term.counted_rows(batch)
