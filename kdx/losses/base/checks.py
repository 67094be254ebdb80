"""Requirements that terms and methods place on networks and data, each refused in one sentence."""

from torch import Tensor

from kdx.core.outputs import Shapes
from kdx.core.spec import DataSpec

ADVICE = "wrap the term in kdx.losses.wrappers.over_rows.OverRows, which applies it to each token, pixel or region"


def require_teacher(teacher: Shapes | None, term: str) -> Shapes:
    """Return the teacher's shapes.

    Raises:
        ValueError: There is no teacher.

    Example:
        >>> require_teacher(Shapes((10,), {}), "KD").logits
        (10,)
    """
    if teacher is None:
        raise ValueError(f"{term} compares a student with a teacher, but there is no teacher")
    return teacher


def require_rows(logits: Tensor, whose: str, term: str) -> None:
    """Refuse logits that are not one vector per example, [B, C]. Reads the rank alone, so a GPU does not wait.

    Raises:
        ValueError: The logits have another number of axes.

    Example:
        >>> import torch
        >>> require_rows(torch.zeros(8, 10), "student", "KD")
        >>> require_rows(torch.zeros(8, 128, 10), "student", "KD")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: KD reads one vector of logits per example, [B, C], but the student's logits are [8, 128, 10]; ...
    """
    if logits.ndim != 2:
        raise ValueError(
            f"{term} reads one vector of logits per example, [B, C], but the {whose}'s logits are "
            f"[{_axes(tuple(logits.shape))}]; {ADVICE}"
        )


def require_vector(shapes: Shapes, whose: str, term: str) -> None:
    """Refuse a network whose logits are not one vector per example.

    Raises:
        ValueError: The logits have another number of axes.

    Example:
        >>> require_vector(Shapes((10,), {}), "student", "KD")
        >>> require_vector(Shapes((128, 10), {}), "student", "KD")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: KD reads one vector of logits per example, [B, C], but the student's logits are [B, 128, 10]; ...
    """
    if len(shapes.logits) != 1:
        raise ValueError(
            f"{term} reads one vector of logits per example, [B, C], but the {whose}'s logits are "
            f"[B, {_axes(shapes.logits)}]; {ADVICE}"
        )


def require_same_logits(student: Shapes, teacher: Shapes | None, term: str) -> None:
    """Refuse a pair whose logits are not vectors of the same length.

    Raises:
        ValueError: There is no teacher, or the logits cannot be compared class by class.

    Example:
        >>> require_same_logits(Shapes((10,), {}), Shapes((10,), {}), "KD")
        >>> require_same_logits(Shapes((10,), {}), Shapes((100,), {}), "KD")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: KD compares logits class by class: the student's have shape (10,), the teacher's (100,); ...
    """
    teacher = require_teacher(teacher, term)
    for shapes, whose in ((student, "student"), (teacher, "teacher")):
        require_vector(shapes, whose, term)
    if student.logits != teacher.logits:
        raise ValueError(
            f"{term} compares logits class by class: the student's have shape {student.logits}, "
            f"the teacher's {teacher.logits}; give both the same number of classes"
        )


def require_labels(spec: DataSpec, term: str) -> None:
    """Refuse a training set in which examples have no label.

    Raises:
        ValueError: An example has no label.

    Example:
        >>> from kdx.tasks.classes import image_classes
        >>> spec = image_classes(10, (1, 8, 8), 2, (0.0,), (1.0,), labels=torch.tensor([3, -1]))
        >>> require_labels(spec, "DKD")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: DKD reads the label of every example, and this transfer set has examples without; ...
    """
    if spec.has_unlabelled:
        raise ValueError(
            f"{term} reads the label of every example, and this transfer set has examples without; choose a method "
            "that learns from the teacher's logits alone, such as method=kd, or transfer=train"
        )


def require_some_labels(spec: DataSpec, who: str) -> None:
    """Refuse a training set without a single label.

    Raises:
        ValueError: No example has a label.

    Example:
        >>> from kdx.tasks.classes import image_classes
        >>> spec = image_classes(10, (1, 8, 8), 2, (0.0,), (1.0,), labels=torch.tensor([-1, -1]))
        >>> require_some_labels(spec, "learning from labels")
        Traceback (most recent call last):
        ValueError: learning from labels needs labels, and this transfer set has none, so there is nothing to learn from
    """
    if not spec.has_labelled:
        raise ValueError(f"{who} needs labels, and this transfer set has none, so there is nothing to learn from")


def require_map(shape: tuple[int, ...], role: str, whose: str, term: str) -> tuple[int, int, int]:
    """Return the shape of a feature map as (channels, height, width).

    Raises:
        ValueError: The feature is not a map.

    Example:
        >>> require_map((64, 8, 8), "stage3", "student", "AT")
        (64, 8, 8)
        >>> require_map((64,), "pooled", "student", "AT")
        Traceback (most recent call last):
        ValueError: AT reads feature maps [B, C, H, W], but the student's 'pooled' is [B, 64]
    """
    if len(shape) != 3:
        hint = ""
        if len(shape) == 2:
            hint = f"; for tokens on a grid, taps={{{role}: 'PATH:blc+1'}} says how many come before it"
        raise ValueError(
            f"{term} reads feature maps [B, C, H, W], but the {whose}'s '{role}' is [B, {_axes(shape)}]{hint}"
        )
    return shape[0], shape[1], shape[2]


def _axes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
