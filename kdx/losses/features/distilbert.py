"""DistilBERT: the direction of the last hidden states."""

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import promoted
from kdx.losses.base.tokens import Average, OnTokens, layer_role, require_equal


@full_precision
def cosine_distance(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """`1 - cos` of the angle between the hidden states of a token.

    Args:
        student_states: [B, L, D].
        teacher_states: [B, L, D]; gets no gradient.

    Returns:
        [B, L].

    References:
        Sanh, Debut, Chaumond, Wolf, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
        2019. https://arxiv.org/abs/1910.01108

    Example:
        >>> states = torch.randn(1, 2, 8)
        >>> torch.allclose(cosine_distance(states, -3 * states), torch.full((1, 2), 2.0))
        True
    """
    return 1 - (unit(student_states, 2) * unit(teacher_states.detach(), 2)).sum(2)


class HiddenCosine(OnTokens):
    """Cosine distance of the hidden states of the tokens in one layer.

    Args:
        student_layer: The student's layer, from 1; None for its last.
        teacher_layer: The teacher's; None likewise.
        average: As in `token_mean`.
    """

    called = "DistilBERT"

    def __init__(self, student_layer: PositiveInt | None, teacher_layer: PositiveInt | None, average: Average):
        super().__init__(average)
        self.student_layer, self.teacher_layer = student_layer, teacher_layer
        self._roles: tuple[tuple[str, ...], tuple[str, ...]] = (), ()

    def student_roles(self) -> tuple[str, ...]:
        return self._roles[0]

    def teacher_roles(self) -> tuple[str, ...]:
        return self._roles[1]

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = self.checked(teacher, spec)
        mine = layer_role("hidden", self.student_layer, student, "student", "DistilBERT")
        theirs = layer_role("hidden", self.teacher_layer, teacher, "teacher", "DistilBERT")
        widths = student.feature(mine, "student")[-1], teacher.feature(theirs, "teacher")[-1]
        instead = "method=tinybert_intermediate projects, method=minilm_v2 compares any"
        require_equal(*widths, "hidden widths", "DistilBERT", instead)
        self._roles = (mine,), (theirs,)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        (mine,), (theirs,) = self._roles
        values = cosine_distance(promoted(student.feature(mine)), promoted(teacher.feature(theirs)))
        return self.averaged(values, batch)
