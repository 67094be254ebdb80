"""SemCKD: each of the student's maps learns from all of the teacher's, weighted by an attention."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.adapters import block
from kdx.losses.base.checks import require_map, require_teacher
from kdx.losses.base.memory_format import examples
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import promoted
from kdx.losses.base.roles import inner_roles, pair_roles, resolve
from kdx.losses.base.term import Term
from kdx.losses.features.at import to_common_size


@full_precision
def calibrated(errors: Tensor, energies: Tensor, temperature: float) -> Tensor:
    """Errors of each of the student's maps, averaged over the teacher's maps by an attention, then over the student's.

    Args:
        errors: Mean squared differences [B, S, T] of S maps of the student and T of the teacher.
        energies: Similarities of the maps, [B, S, T]; their softmax over T gives the attention.
        temperature: T of that softmax.

    Returns:
        [B].

    References:
        Chen, Mei, Zhang, Wang, Feng, Chen, "Cross-Layer Distillation with Semantic Calibration", 2021.
        https://arxiv.org/abs/2012.03236

    Example:
        With equal energies, the attention is uniform.

        >>> errors = torch.rand(2, 3, 4)
        >>> torch.allclose(calibrated(errors, torch.zeros(2, 3, 4), 0.5), errors.mean((1, 2)))
        True
    """
    return ((energies / temperature).softmax(2) * errors).sum(2).mean(1)


@full_precision
def among(feature: Tensor, columns: int) -> Tensor:
    """Inner products of each example with all examples of its batch, padded with zeros: [B, ...] to [B, columns].

    Example:
        >>> among(torch.eye(2), 3)
        tensor([[1., 0., 0.],
                [0., 1., 0.]])
    """
    flat = examples(feature)
    return F.pad(flat @ flat.mT, (0, columns - len(flat)))


class _Embedding(nn.Sequential):
    """Embeds an example's relations as a query or key of length 1."""

    def __init__(self, columns: int, width: int):
        super().__init__(nn.Linear(columns, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, input: Tensor) -> Tensor:
        return unit(super().forward(input), 1)


class SemCKD(Term):
    """Mean squared differences of all pairs of maps, weighted by an attention that is trained with the student.

    The attention compares two maps by each example's relations to the rest of its batch in both, so an example is
    identified by its position in the batch, as published. The authors drop batches shorter than `batch_size`; here the
    missing positions count as zero.

    Args:
        student_roles: The student's maps; None for all stages but the stem.
        teacher_roles: The teacher's, any number of them; None likewise.
        batch_size: Examples in a whole batch, the width of what the attention reads.
        reduction: `batch_size` over the width of queries and keys.
        temperature: Of the attention; a number or a schedule.
    """

    divisible = False
    reads_logits = False

    def __init__(
        self,
        student_roles: Sequence[str] | None,
        teacher_roles: Sequence[str] | None,
        batch_size: PositiveInt,
        reduction: PositiveInt,
        temperature: Positive | Schedule,
    ):
        super().__init__()
        self._student_roles = _given(student_roles)
        self._teacher_roles = _given(teacher_roles)
        self.batch_size, self.reduction, self.temperature = batch_size, reduction, temperature
        self.queries, self.keys, self.regressors = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()

    def student_roles(self) -> tuple[str, ...]:
        return self._student_roles

    def teacher_roles(self) -> tuple[str, ...]:
        return self._teacher_roles

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = require_teacher(teacher, "SemCKD")
        self._student_roles = _settled(self._student_roles, student, "student")
        self._teacher_roles = _settled(self._teacher_roles, teacher, "teacher")
        mine, theirs = (
            [require_map(shapes.feature(role, whose), role, whose, "SemCKD")[0] for role in roles]
            for shapes, whose, roles in (
                (student, "student", self._student_roles),
                (teacher, "teacher", self._teacher_roles),
            )
        )
        width = max(1, self.batch_size // self.reduction)
        self.queries = nn.ModuleList(_Embedding(self.batch_size, width) for _ in mine)
        self.keys = nn.ModuleList(_Embedding(self.batch_size, width) for _ in theirs)
        self.regressors = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(
                    *block(inputs, 2 * outputs, 1),
                    *block(2 * outputs, 2 * outputs, 3),
                    nn.Conv2d(2 * outputs, outputs, 1, bias=False),
                )
                for outputs in theirs
            )
            for inputs in mine
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        if len(batch) > self.batch_size:
            raise ValueError(
                f"SemCKD reads batches of at most batch_size={self.batch_size} examples, this one has {len(batch)}"
            )
        mine = [promoted(student.feature(role)) for role in self._student_roles]
        theirs = [promoted(teacher.feature(role)).detach() for role in self._teacher_roles]
        queries, keys = (
            torch.stack([embed(among(f, self.batch_size)) for embed, f in zip(embeds, features, strict=True)], 1)
            for embeds, features in ((self.queries, mine), (self.keys, theirs))
        )
        errors = [
            _error(regressor, a, b)
            for regressors, a in zip(self.regressors, mine, strict=True)
            for regressor, b in zip(regressors, theirs, strict=True)  # pyright: ignore[reportArgumentType]
        ]
        shape = len(batch), len(mine), len(theirs)
        return calibrated(torch.stack(errors, 1).view(shape), queries @ keys.mT, at(self.temperature, progress))


def _given(roles: Sequence[str] | None) -> tuple[str, ...]:
    return () if roles is None else tuple(role for role, _ in pair_roles(roles, "SemCKD"))


def _settled(roles: tuple[str, ...], shapes: Shapes, whose: str) -> tuple[str, ...]:
    return tuple(resolve(role, shapes, whose) for role in roles or inner_roles(shapes, whose))


def _error(regressor: nn.Module, mine: Tensor, theirs: Tensor) -> Tensor:
    mine, theirs = to_common_size(mine, theirs)
    return examples(promoted(regressor(mine)) - theirs).square().mean(1)
