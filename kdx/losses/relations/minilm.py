"""MiniLM: self-attention of one layer, by its distributions over the keys and relations of the values."""

from typing import ClassVar

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import divergence
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import promoted
from kdx.losses.base.tokens import Average, OnTokens, layer_role, require_equal, tokens_of


@full_precision
def attention_divergence(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """KL between the softmaxes of scores over the keys that are tokens, averaged over heads.

    Args:
        student_scores: [B, heads, L, L].
        teacher_scores: [B, heads, L, L]; gets no gradient.
        mask: Tokens, bool [B, L].

    Returns:
        A value for each query, [B, L], in nats.

    References:
        Wang, Wei, Dong, Bao, Yang, Zhou, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of
        Pre-Trained Transformers", 2020. https://arxiv.org/abs/2002.10957

    Example:
        An attention to one of two tokens is log 2 away from a uniform one.

        >>> certain, mask = torch.zeros(1, 1, 2, 2), torch.ones(1, 2, dtype=torch.bool)
        >>> certain[..., 0] = 90.0
        >>> torch.allclose(attention_divergence(torch.zeros(1, 1, 2, 2), certain, mask), torch.tensor(2.0).log())
        True
    """
    log_p, log_q = (_over_keys(scores, mask) for scores in (teacher_scores.detach(), student_scores))
    return divergence(log_p.movedim(3, 1), log_q.movedim(3, 1)).mean(1)


def relation_scores(vectors: Tensor) -> Tensor:
    """Scaled inner products `X X^T / sqrt(d)` of the vectors of a head.

    Args:
        vectors: [B, heads, L, d].

    Returns:
        [B, heads, L, L].

    Example:
        >>> relation_scores(torch.ones(1, 1, 2, 4)).flatten()
        tensor([2., 2., 2., 2.])
    """
    return vectors @ vectors.mT / vectors.shape[3] ** 0.5


@full_precision
def relation_divergence(student_vectors: Tensor, teacher_vectors: Tensor, mask: Tensor) -> Tensor:
    """KL between the relations of the vectors of each head, `softmax(X X^T / sqrt(d))`, averaged over heads.

    Args:
        student_vectors: Queries, keys or values [B, heads, L, d].
        teacher_vectors: [B, heads, L, D]; gets no gradient.
        mask: Tokens, bool [B, L].

    Returns:
        A value for each token, [B, L], in nats.

    Example:
        >>> vectors, mask = torch.randn(1, 2, 3, 4), torch.ones(1, 3, dtype=torch.bool)
        >>> relation_divergence(vectors, vectors, mask).abs().max() < 1e-6
        tensor(True)
    """
    return attention_divergence(relation_scores(student_vectors), relation_scores(teacher_vectors.detach()), mask)


def _over_keys(scores: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities [B, heads, L, L] of the keys, -inf at padding; of all keys in an example without a token."""
    keys = mask | ~mask.any(1, keepdim=True)
    return scores.masked_fill(~keys[:, None, None], -torch.inf).log_softmax(3)


class OfLayer(OnTokens):
    """A term on one kind of feature of one layer of each network.

    Args:
        student_layer: The student's layer, from 1; None for its last.
        teacher_layer: The teacher's; None likewise.
        average: As in `token_mean`.

    Attributes:
        kind: Kind of the feature, such as "value".
    """

    called: ClassVar[str] = "MiniLM"
    kind: str

    def __init__(self, student_layer: PositiveInt | None, teacher_layer: PositiveInt | None, average: Average):
        super().__init__(average)
        self.student_layer, self.teacher_layer = student_layer, teacher_layer
        self._roles: tuple[tuple[str, ...], tuple[str, ...]] = (), ()

    def student_roles(self) -> tuple[str, ...]:
        return self._roles[0]

    def teacher_roles(self) -> tuple[str, ...]:
        return self._roles[1]

    def settle(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> tuple[tuple[int, ...], ...]:
        """Find the roles; returns the shapes of the student's feature and of the teacher's."""
        teacher = self.checked(teacher, spec)
        mine = layer_role(self.kind, self.student_layer, student, "student", self.called)
        theirs = layer_role(self.kind, self.teacher_layer, teacher, "teacher", self.called)
        self._roles = (mine,), (theirs,)
        return student.feature(mine, "student"), teacher.feature(theirs, "teacher")

    def features(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """The two features."""
        (mine,), (theirs,) = self._roles
        return promoted(student.feature(mine)), promoted(teacher.feature(theirs)).detach()


class _EqualHeads(OfLayer):
    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        mine, theirs = self.settle(student, teacher, spec)
        instead = "method=minilm_v2 compares any number of heads"
        require_equal(mine[0], theirs[0], "attention heads", "MiniLM", instead)


class MiniLMAttention(_EqualHeads):
    """Divergence of the attention distributions, see `attention_divergence`.

    They are computed from the scores before the softmax, so that attention dropout plays no part.

    Args:
        student_layer, teacher_layer, average: As in `OfLayer`.
    """

    kind = "attention"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return self.averaged(attention_divergence(*self.features(student, teacher), tokens_of(batch)), batch)


class MiniLMValues(_EqualHeads):
    """Divergence of the relations of the values, head by head, see `relation_divergence`; widths may differ.

    Args:
        student_layer, teacher_layer, average: As in `OfLayer`.
    """

    kind = "value"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return self.averaged(relation_divergence(*self.features(student, teacher), tokens_of(batch)), batch)
