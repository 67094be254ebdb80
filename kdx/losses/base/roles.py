"""The features that a term compares: roles from a config, their order, and defaults that follow the networks."""

from collections.abc import Mapping, Sequence

from kdx.core.notice import notice
from kdx.core.outputs import Shapes, find_role

Roles = Sequence[str] | Mapping[str, str | Sequence[str]]
Pairs = tuple[tuple[str, str], ...]

INSTEAD = {"final": "last", "pre_logits": "pooled"}
PREACT = ".preact"


def pair_roles(roles: Roles, term: str) -> Pairs:
    """Pairs (student's role, teacher's role).

    Args:
        roles: A list names the same roles on both sides; a mapping goes from the student's role to the teacher's; a
            mapping of `student` and `teacher` to lists pairs these in order.
        term: Name of the term, for the message.

    Raises:
        ValueError: There is no role, `roles` is a string, or stages are not given from shallow to deep.

    Example:
        >>> pair_roles(["stage1", "stage2"], "AT")
        (('stage1', 'stage1'), ('stage2', 'stage2'))
        >>> pair_roles({"stage1": "stage3"}, "AT")
        (('stage1', 'stage3'),)
        >>> pair_roles({"student": ["stage1", "stage2"], "teacher": ["stage2", "stage4"]}, "AT")
        (('stage1', 'stage2'), ('stage2', 'stage4'))
    """
    if isinstance(roles, str) or not roles:
        raise ValueError(f"{term} expects a list of roles or a mapping from student's to teacher's, got {roles!r}")
    pairs = _pairs(roles, term)
    for side, whose in enumerate(("student", "teacher")):
        depths = [_depth(pair[side]) for pair in pairs]
        stages = [depth for depth in depths if depth is not None]
        if stages != sorted(stages):
            named = ", ".join(pair[side] for pair in pairs)
            raise ValueError(f"{term} reads the {whose}'s roles from shallow to deep; got {named}")
    return pairs


def resolve(role: str, shapes: Shapes, whose: str) -> str:
    """The role of a network that serves for a role: itself, or else the closest one that it has, with a notice.

    The activation serves for a missing pre-activation, the map that enters the pooling ("last") for a missing "final",
    and "pooled" for missing "pre_logits".

    Raises:
        ValueError: The network has neither; the message names its roles.

    Example:
        >>> resolve("stage1", Shapes((10,), {"stage1": (4, 8, 8)}), "student")
        'stage1'
    """
    if role in shapes.features or role == "last":
        return find_role(role, shapes.features, whose)
    other = role.removesuffix(PREACT) if role.endswith(PREACT) else INSTEAD.get(role)
    if other is None:
        return find_role(role, shapes.features, whose)
    try:
        found = find_role(other, shapes.features, whose)
    except ValueError:
        return find_role(role, shapes.features, whose)
    notice(f"the {whose} has no feature '{role}'; its '{found}' is read")
    return found


def inner_pairs(student: Shapes, teacher: Shapes, stem: bool = False, preact: str = "") -> Pairs:
    """All stages of both networks, paired from the first on; surplus stages are left out with a notice.

    Args:
        student: Shapes of the student's outputs.
        teacher: Shapes of the teacher's outputs.
        stem: Whether "stage0" comes first, where both have it.
        preact: The sides whose features before their activation are read: "", "teacher" or "both".

    Raises:
        ValueError: A network has no stage.

    Example:
        >>> maps = {f"stage{i}": (4, 8, 8) for i in range(5)}
        >>> [mine for mine, _ in inner_pairs(Shapes((10,), maps), Shapes((10,), maps))]
        ['stage1', 'stage2', 'stage3', 'stage4']
    """
    mine, theirs = inner_roles(student, "student"), inner_roles(teacher, "teacher")
    if len(mine) != len(theirs):
        notice(
            f"the student has {len(mine)} stages and the teacher {len(theirs)}; the first "
            f"{min(len(mine), len(theirs))} of each are compared"
        )
    pairs = list(zip(mine, theirs, strict=False))
    if stem and "stage0" in student.features and "stage0" in teacher.features:
        pairs.insert(0, ("stage0", "stage0"))
    before = (PREACT if preact == "both" else "", PREACT if preact else "")
    return tuple((a + before[0], b + before[1]) for a, b in pairs)


def inner_roles(shapes: Shapes, whose: str) -> list[str]:
    """The stages of a network from the first on, without the stem.

    Raises:
        ValueError: There is none.

    Example:
        >>> inner_roles(Shapes((10,), {"stage0": (4, 8, 8), "stage1": (4, 8, 8), "pooled": (4,)}), "student")
        ['stage1']
    """
    found = sorted((depth, role) for role in shapes.features if "." not in role and (depth := _depth(role)))
    if not found:
        raise ValueError(f"the {whose} has no stages; it has: {', '.join(shapes.features) or 'none'}")
    return [role for _, role in found]


def _pairs(roles: Sequence[str] | Mapping[str, str | Sequence[str]], term: str) -> Pairs:
    if not isinstance(roles, Mapping):
        return tuple((role, role) for role in roles)
    if roles.keys() == {"student", "teacher"} and not any(isinstance(side, str) for side in roles.values()):
        if len(roles["student"]) != len(roles["teacher"]):
            raise ValueError(
                f"{term} pairs roles in order: {len(roles['student'])} of the student, {len(roles['teacher'])} of the "
                "teacher"
            )
        return tuple(zip(roles["student"], roles["teacher"], strict=True))
    if not all(isinstance(theirs, str) for theirs in roles.values()):
        raise ValueError(f"{term} expects one role of the teacher for each of the student, got {dict(roles)}")
    return tuple((mine, str(theirs)) for mine, theirs in roles.items())


def _depth(role: str) -> int | None:
    number = role.removesuffix(PREACT).removeprefix("stage")
    return int(number) if role.startswith("stage") and number.isdigit() else None
