"""MiniLM: self-attention of one layer, by its distributions over the keys and relations of the values."""

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import divergence
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.tokens import OfLayer, require_equal, tokens_of


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


class _EqualHeads(OfLayer):
    called = "MiniLM"

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
