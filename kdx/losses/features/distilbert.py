"""DistilBERT: the direction of the last hidden states."""

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.tokens import OfLayer, require_equal


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


class HiddenCosine(OfLayer):
    """Cosine distance of the hidden states of the tokens in one layer.

    Args:
        student_layer, teacher_layer, average: As in `OfLayer`.
    """

    called = "DistilBERT"
    kind = "hidden"

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        mine, theirs = self.settle(student, teacher, spec)
        instead = "method=tinybert_intermediate projects, method=minilm_v2 compares any"
        require_equal(mine[-1], theirs[-1], "hidden widths", "DistilBERT", instead)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return self.averaged(cosine_distance(*self.features(student, teacher)), batch)
