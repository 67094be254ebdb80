"""TinyBERT: embeddings, hidden states and attention scores of all layers."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import promoted
from kdx.losses.base.tokens import Average, OnTokens, layer_map, num_layers, require_equal, tokens_of

Projection = Literal["shared", "none"]
PAPER = "TinyBERT"


@full_precision
def score_gaps(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of attention scores before the softmax, over heads and keys that are tokens.

    Args:
        student_scores: [B, heads, L, L].
        teacher_scores: [B, heads, L, L]; gets no gradient.
        mask: Tokens, bool [B, L]. The scores of padded keys count as zero on both sides, and are left out of the mean,
            so that a longer padding changes nothing.

    Returns:
        A value for each query, [B, L].

    References:
        Jiao, Yin, Shang, Jiang, Chen, Li, Wang, Liu, "TinyBERT: Distilling BERT for Natural Language Understanding",
        2020. https://arxiv.org/abs/1909.10351

    Example:
        >>> scores, mask = torch.randn(1, 2, 3, 3), torch.tensor([[True, True, False]])
        >>> torch.allclose(score_gaps(scores, scores + 2, mask), torch.full((1, 3), 4.0))
        True
    """
    keys = mask[:, None, None]
    gaps = torch.where(keys, student_scores - teacher_scores.detach(), 0.0).square().mean(1)
    return gaps.sum(2) / mask.sum(1, keepdim=True).clamp(min=1)


@full_precision
def state_gaps(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """Mean squared difference of hidden states, over coordinates.

    Args:
        student_states: [B, L, D], in the teacher's width.
        teacher_states: [B, L, D]; gets no gradient.

    Returns:
        A value for each token, [B, L].

    Example:
        >>> state_gaps(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 3.0))
        tensor([[9., 9.]])
    """
    return (student_states - teacher_states.detach()).square().mean(2)


class _Layers(OnTokens):
    """A term over all of the student's layers, each with a layer of the teacher.

    Args:
        layers: The teacher's layers; None for every N / M-th, as published.
        average: As in `token_mean`.
    """

    called = PAPER

    def __init__(self, layers: Sequence[PositiveInt] | None, average: Average):
        super().__init__(average)
        self.layers = layers
        self._pairs: list[tuple[str, str]] = []

    def student_roles(self) -> tuple[str, ...]:
        return tuple(mine for mine, _ in self._pairs)

    def teacher_roles(self) -> tuple[str, ...]:
        return tuple(theirs for _, theirs in self._pairs)

    def pair(self, kind: str, student: Shapes, teacher: Shapes) -> list[tuple[str, str]]:
        """The roles of a kind of feature, layer by layer."""
        depth, deeper = num_layers(kind, student, "student", PAPER), num_layers(kind, teacher, "teacher", PAPER)
        chosen = layer_map(self.layers, depth, deeper, PAPER)
        return [(f"{kind}.{i}", f"{kind}.{layer}") for i, layer in enumerate(chosen, 1)]


class TinyBERTAttention(_Layers):
    """Attention scores before the softmax, summed over the student's layers; see `score_gaps`.

    The authors' mean runs over padding too, where both scores are set to zero.

    Args:
        layers, average: As in `_Layers`; the mean over tokens runs over the queries.
    """

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = self.checked(teacher, spec)
        self._pairs = self.pair("attention", student, teacher)
        for mine, theirs in self._pairs:
            heads = student.feature(mine, "student")[0], teacher.feature(theirs, "teacher")[0]
            instead = "method=minilm_v2 compares self-attention of any number of heads"
            require_equal(*heads, "attention heads", PAPER, instead)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        mask = tokens_of(batch)
        pairs = [(promoted(student.feature(mine)), promoted(teacher.feature(theirs))) for mine, theirs in self._pairs]
        return self.averaged(torch.stack([score_gaps(*pair, mask) for pair in pairs]).sum(0), batch)


class TinyBERTHidden(_Layers):
    """Embeddings and hidden states, summed over embeddings and the student's layers; see `state_gaps`.

    Args:
        layers, average: As in `_Layers`.
        projection: 'shared' maps every state of the student to the teacher's width by one linear layer with a bias, as
            in the authors' code, also between equal widths. 'none' compares states of equal width as they are.
    """

    def __init__(self, layers: Sequence[PositiveInt] | None, average: Average, projection: Projection):
        super().__init__(layers, average)
        if projection not in ("shared", "none"):
            raise ValueError(f"projection must be 'shared' or 'none', got {projection!r}")
        self.projection: Projection = projection
        self.project: nn.Module = nn.Identity()

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = self.checked(teacher, spec)
        self._pairs = [("embeddings", "embeddings"), *self.pair("hidden", student, teacher)]
        mine = _width(student, self.student_roles(), "student")
        theirs = _width(teacher, self.teacher_roles(), "teacher")
        if self.projection == "shared":
            self.project = nn.Linear(mine, theirs)
        else:
            require_equal(mine, theirs, "hidden widths", PAPER, "projection=shared maps one to the other")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        values = [
            state_gaps(self.project(promoted(student.feature(mine))), promoted(teacher.feature(theirs)))
            for mine, theirs in self._pairs
        ]
        return self.averaged(torch.stack(values).sum(0), batch)


def _width(shapes: Shapes, roles: Sequence[str], whose: str) -> int:
    """The width of several features. Raises ValueError where they differ."""
    widths = {shapes.feature(role, whose)[-1] for role in roles}
    if len(widths) > 1:
        raise ValueError(
            f"TinyBERT's projection is shared by embeddings and layers, so they need one width; the {whose} has "
            f"{sorted(widths)}"
        )
    return widths.pop()
