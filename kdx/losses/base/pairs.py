"""The contract of terms over pairs of features."""

from typing import ClassVar

import torch
from torch import Tensor

from kdx.core.notice import notice
from kdx.core.outputs import Outputs, Shapes
from kdx.losses.base.checks import require_map, require_teacher
from kdx.losses.base.roles import Pairs, Roles, inner_pairs, pair_roles, resolve
from kdx.losses.base.term import Term

Size = tuple[int, int, int]


class Paired(Term):
    """A term that compares features of the student with features of the teacher, pair by pair.

    Attributes:
        called: Name of the method, for messages.
        pairs: (student's role, teacher's role), from shallow to deep. Where they are None, `default_pairs` gives them
            when shapes are known.
    """

    reads_logits = False
    tasks = None
    called: ClassVar[str]

    def __init__(self, roles: Roles | None):
        super().__init__()
        self.pairs: Pairs = () if roles is None else pair_roles(roles, self.called)

    def default_pairs(self, student: Shapes, teacher: Shapes) -> Pairs:
        """The pairs where none are given: all stages but the stem."""
        return inner_pairs(student, teacher)

    def student_roles(self) -> tuple[str, ...]:
        return tuple(mine for mine, _ in self.pairs)

    def teacher_roles(self) -> tuple[str, ...]:
        return tuple(theirs for _, theirs in self.pairs)

    def shapes(self, student: Shapes, teacher: Shapes | None) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The two shapes of each pair. Settles `pairs`: defaults, and features that serve for missing ones.

        Raises:
            ValueError: There is no teacher, or a role is missing.
        """
        teacher = require_teacher(teacher, self.called)
        given = self.pairs or self.default_pairs(student, teacher)
        self.pairs = tuple(
            (resolve(mine, student, "student"), resolve(theirs, teacher, "teacher")) for mine, theirs in given
        )
        return [(student.feature(mine, "student"), teacher.feature(theirs, "teacher")) for mine, theirs in self.pairs]

    def maps(self, student: Shapes, teacher: Shapes | None) -> list[tuple[Size, Size]]:
        """The two shapes (C, H, W) of each pair.

        Raises:
            ValueError: There is no teacher, a role is missing, or a feature is not a map.
        """
        return [
            (require_map(a, mine, "student", self.called), require_map(b, theirs, "teacher", self.called))
            for (a, b), (mine, theirs) in zip(self.shapes(student, teacher), self.pairs, strict=True)
        ]

    def maps_of_positions(self, student: Shapes, teacher: Shapes | None) -> list[tuple[Size, Size]]:
        """As `maps`, for a term that compares positions: says which pairs have a single one in common, and so add 0."""
        found = self.maps(student, teacher)
        for (a, b), (mine, theirs) in zip(found, self.pairs, strict=True):
            if min(a[1], b[1]) * min(a[2], b[2]) == 1:
                notice(
                    f"{self.called} compares positions, and the student's '{mine}' {list(a[1:])} and the teacher's "
                    f"'{theirs}' {list(b[1:])} have one in common: this pair adds 0; earlier stages or larger inputs "
                    "have more"
                )
        return found

    def features(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        """The two features of each pair in full precision, the teacher's without gradient."""
        return [
            (promoted(student.feature(mine)), promoted(teacher.feature(theirs)).detach()) for mine, theirs in self.pairs
        ]


def promoted(feature: Tensor) -> Tensor:
    """Cast half precision up to float32; return any other tensor unchanged.

    Example:
        >>> promoted(torch.zeros(2, dtype=torch.bfloat16)).dtype, promoted(torch.zeros(2, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return feature.float() if feature.dtype in (torch.bfloat16, torch.float16) else feature
