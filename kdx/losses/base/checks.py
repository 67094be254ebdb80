"""What terms ask of a pair of networks before training, answered in a sentence."""

from collections.abc import Mapping, Sequence

from kdx.core.types import DataSpec, Shapes


def require_teacher(teacher: Shapes | None, term: str) -> Shapes:
    """The teacher's shapes; a ValueError where there is no teacher."""
    if teacher is None:
        raise ValueError(f"{term} compares a student with a teacher, but there is no teacher")
    return teacher


def require_same_logits(student: Shapes, teacher: Shapes | None, term: str) -> None:
    """Refuse a pair whose logits cannot be compared class by class."""
    teacher = require_teacher(teacher, term)
    if student.logits != teacher.logits:
        raise ValueError(
            f"{term} compares logits class by class: the student's have shape {student.logits}, "
            f"the teacher's {teacher.logits}; give both the same number of classes"
        )


def require_labels(spec: DataSpec, term: str) -> None:
    """Refuse a transfer set in which examples have no label."""
    if spec.has_unlabelled:
        raise ValueError(
            f"{term} reads the label of every example, and this transfer set has examples without; choose a method "
            "that learns from the teacher's logits alone, such as method=kd, or transfer=train"
        )


def require_some_labels(spec: DataSpec, who: str) -> None:
    """Refuse a transfer set without a single label where there is nothing else to learn from."""
    if not spec.has_labelled:
        raise ValueError(f"{who} needs labels, and this transfer set has none, so there is nothing to learn from")


def require_map(shape: tuple[int, ...], role: str, whose: str, term: str) -> tuple[int, int, int]:
    """The shape as (channels, height, width); a ValueError where the feature is no map."""
    if len(shape) != 3:
        raise ValueError(f"{term} reads feature maps [B, C, H, W], but the {whose}'s '{role}' is [B, {_axes(shape)}]")
    return shape[0], shape[1], shape[2]


def pair_roles(roles: Sequence[str] | Mapping[str, str], term: str) -> tuple[tuple[str, str], ...]:
    """Pairs (student's role, teacher's role).

    Args:
        roles: A list names the same roles on both sides; a mapping goes from the student's to the teacher's.
        term: Who asks, for the sentence.

    Raises:
        ValueError: No role at all, or a bare string.
    """
    if isinstance(roles, str) or not roles:
        raise ValueError(f"{term} expects a list of roles or a mapping from student's to teacher's, got {roles!r}")
    return tuple(roles.items()) if isinstance(roles, Mapping) else tuple((role, role) for role in roles)


def _axes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
