"""A teacher's weights in the place of a student's, for networks of one architecture."""

from torch import Tensor, nn

from kdx.core.errors import UserError


def counterpart(student: nn.Module, teacher: nn.Module) -> dict[str, Tensor]:
    """The teacher's parameters by the names of the student's.

    Args:
        student: The student.
        teacher: The teacher, in any wrappers (as `net`).

    Raises:
        UserError: The networks have different parameters, or the teacher has input statistics of its own.

    Example:
        >>> student, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> counterpart(student, teacher)["weight"].data_ptr() == teacher.weight.data_ptr()
        True
    """
    own = {name: p.shape for name, p in student.named_parameters()}
    inner: nn.Module | None = teacher
    while inner is not None:
        found = dict(inner.named_parameters())
        if {name: p.shape for name, p in found.items()} == own:
            return {name: found[name].detach() for name in own}
        if getattr(inner, "scale", None) is not None:
            raise UserError("the teacher's gradient needs inputs with the student's normalisation; remove teacher.mean")
        inner = getattr(inner, "net", None)
    raise UserError(
        "the teacher's gradient at its own weights needs a teacher of the student's architecture, with parameters of "
        "the same names and shapes"
    )
