"""MiniLMv2: relations among queries, keys or values of one layer, for any number of attention heads."""

from typing import Literal

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.tokens import Average, OfLayer, tokens_of
from kdx.losses.relations.minilm import relation_divergence

Vectors = Literal["query", "key", "value"]


def relation_heads(vectors: Tensor, count: int) -> Tensor:
    """Concatenate the heads, then split the result into relation heads.

    Args:
        vectors: [B, heads, L, d].
        count: Number of relation heads A, a divisor of heads * d.

    Returns:
        [B, A, L, heads * d / A].

    References:
        Wang, Bao, Huang, Dong, Wei, "MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing
        Pretrained Transformers", 2021. https://arxiv.org/abs/2012.15828

    Example:
        >>> import torch
        >>> relation_heads(torch.zeros(2, 12, 5, 32), 48).shape
        torch.Size([2, 48, 5, 8])
    """
    joined = vectors.transpose(1, 2).flatten(2)
    return joined.unflatten(2, (count, -1)).transpose(1, 2)


class MiniLMRelation(OfLayer):
    """Divergence of the relations among the queries, the keys or the values of one layer.

    The heads of each network are split anew into the same number of relation heads, so the networks may differ in
    heads and width; see `relation_heads` and `kdx.losses.relations.minilm.relation_divergence`.

    Args:
        vectors: 'query', 'key' or 'value'.
        relation_heads: Number of relation heads, a divisor of both widths.
        student_layer, teacher_layer, average: As in `OfLayer`.
    """

    called = "MiniLMv2"

    def __init__(
        self,
        vectors: Vectors,
        relation_heads: PositiveInt,
        student_layer: PositiveInt | None,
        teacher_layer: PositiveInt | None,
        average: Average,
    ):
        super().__init__(student_layer, teacher_layer, average)
        if vectors not in ("query", "key", "value"):
            raise ValueError(f"vectors must be 'query', 'key' or 'value', got {vectors!r}")
        self.kind, self.relation_heads = vectors, relation_heads

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        widths = [heads * d for heads, _, d in self.settle(student, teacher, spec)]
        if any(width % self.relation_heads for width in widths):
            raise ValueError(
                f"MiniLMv2 splits the widths {widths[0]} (student) and {widths[1]} (teacher) into relation_heads="
                f"{self.relation_heads}, which must divide both"
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        mine, theirs = (relation_heads(f, self.relation_heads) for f in self.features(student, teacher))
        return self.averaged(relation_divergence(mine, theirs, tokens_of(batch)), batch)
