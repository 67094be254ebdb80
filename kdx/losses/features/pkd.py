"""PKD: the class token's hidden states of several layers."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import promoted
from kdx.losses.base.tokens import OnTexts, layer_map, num_layers, require_equal

Strategy = Literal["skip", "last"]


@full_precision
def patience(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """Mean squared difference of hidden states that are scaled to length 1, over layers and coordinates.

    Args:
        student_states: [B, M, D], of M layers.
        teacher_states: [B, M, D]; gets no gradient.

    Returns:
        [B].

    References:
        Sun, Cheng, Gan, Liu, "Patient Knowledge Distillation for BERT Model Compression", 2019.
        https://arxiv.org/abs/1908.09355

    Example:
        Opposite vectors of length 1 differ by 4 / D.

        >>> states = torch.randn(2, 3, 8)
        >>> torch.allclose(patience(states, -7 * states), torch.full((2,), 0.5))
        True
    """
    return (unit(student_states, 2) - unit(teacher_states.detach(), 2)).square().mean((1, 2))


def patient_layers(layers: Strategy | Sequence[int], student: int, teacher: int) -> list[int]:
    """The teacher's layer for each of the student's layers 1 to M - 1; the last layers differ by the logits' loss.

    Args:
        layers: 'skip' takes every N / M-th layer, 'last' the last M - 1 layers before the last one; or the layers.
        student: M, at least 2.
        teacher: N, at least M.

    Raises:
        ValueError: The layers do not fit the networks.

    Example:
        >>> patient_layers("skip", 6, 12), patient_layers("last", 6, 12)
        ([2, 4, 6, 8, 10], [7, 8, 9, 10, 11])
    """
    if isinstance(layers, str) and layers not in ("skip", "last"):
        raise ValueError(f"layers must be 'skip', 'last' or a list of the teacher's layers, got {layers!r}")
    if student < 2 or teacher < student:
        raise ValueError(
            f"PKD compares the student's layers but the last with the teacher's, so it needs 2 layers or more and a "
            f"teacher with as many; the student has {student}, the teacher {teacher}"
        )
    if layers == "skip":
        return layer_map(None, student, teacher, "PKD")[:-1]
    if layers == "last":
        return list(range(teacher - student + 1, teacher))
    return layer_map([int(layer) for layer in layers], student - 1, teacher, "PKD")


class PKD(OnTexts):
    """Normalised hidden states of the class token, the first of the text, in the student's layers but the last.

    Args:
        layers: As in `patient_layers`.
    """

    called = "PKD"

    def __init__(self, layers: Strategy | Sequence[PositiveInt]):
        super().__init__()
        self.layers: Strategy | Sequence[int] = layers
        self._pairs: list[tuple[str, str]] = []

    def student_roles(self) -> tuple[str, ...]:
        return tuple(mine for mine, _ in self._pairs)

    def teacher_roles(self) -> tuple[str, ...]:
        return tuple(theirs for _, theirs in self._pairs)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = self.checked(teacher, spec)
        depths = (num_layers("hidden", of, whose, "PKD") for of, whose in ((student, "student"), (teacher, "teacher")))
        chosen = patient_layers(self.layers, *depths)
        self._pairs = [(f"hidden.{i}", f"hidden.{layer}") for i, layer in enumerate(chosen, 1)]
        for mine, theirs in self._pairs:
            widths = student.feature(mine, "student")[-1], teacher.feature(theirs, "teacher")[-1]
            require_equal(
                *widths, "hidden widths", "PKD", "method=tinybert_intermediate projects, method=minilm_v2 compares any"
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        mine, theirs = (
            torch.stack([promoted(outputs.feature(role)[:, 0]) for role in roles], 1)
            for outputs, roles in ((student, self.student_roles()), (teacher, self.teacher_roles()))
        )
        return patience(mine, theirs)
