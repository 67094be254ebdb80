"""Outputs of a network and their shapes; the terms of a step."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kdx.core.derived import Derived


@dataclass(frozen=True)
class Outputs:
    """Outputs of a network, teacher or student.

    Attributes:
        logits: [B, C].
        features: Tensors by role ("stage2", "stage2.preact", "pooled"), never by module path.
        members: Outputs of the parts of an ensemble; empty for a single network.
        owner: Position in the batch of the example that each row of logits [N, V] belongs to, int64 [N], where rows
            are regions; None otherwise.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple["Outputs", ...] = ()
    owner: Tensor | None = None

    def feature(self, role: str) -> Tensor:
        """The feature of a role, see `find_role`."""
        return self.features[find_role(role, self.features, "network")]

    def detach(self) -> "Outputs":
        return self._map(Tensor.detach)

    def primal(self) -> "Outputs":
        """A copy without the tangents of forward-mode differentiation, with the graph."""
        return self._map(lambda t: forward_ad.unpack_dual(t).primal)

    def float(self) -> "Outputs":
        """A copy with half-precision tensors as float32; a feature is converted when it is first read."""
        members = tuple(m.float() for m in self.members)
        return Outputs(_in_full(self.logits), _InFull(self.features), members, self.owner)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Outputs":
        late = self.features if isinstance(self.features, _InFull) else None
        given = self.features if late is None else late.raw
        changed = given.map(change) if isinstance(given, Derived) else {role: change(f) for role, f in given.items()}
        features = changed if late is None else _InFull(changed)
        members = tuple(m._map(change) for m in self.members)
        return Outputs(change(self.logits), features, members, self.owner)


def _in_full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


class _InFull(Mapping[str, Tensor]):
    """Features in float32, each converted when it is first read, since a method reads few of them."""

    def __init__(self, features: Mapping[str, Tensor]):
        self.raw, self._read = features, dict[str, Tensor]()

    def __getitem__(self, role: str) -> Tensor:
        if role in self._read:
            return self._read[role]
        feature = self.raw[role]
        full = _in_full(feature)
        # do not cache a feature that lacks a graph: a later read may need one
        if torch.is_grad_enabled() or not feature.requires_grad:
            self._read[role] = full
        return full

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


@dataclass(frozen=True)
class Step:
    """The result of a method for a batch.

    Attributes:
        terms: Unweighted scalars with a graph, by name; the names equal those of the weights.
        report: Detached scalars that are logged and not part of the loss.
        outputs: The student's outputs, for training metrics; None if there is no single student.
    """

    terms: Mapping[str, Tensor]
    report: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Outputs | None = None


class Turn(NamedTuple):
    """A part of a step.

    Attributes:
        party: Name of the party; only its parameters learn from the terms.
        step: Terms of this turn, some or all of the method's.
    """

    party: str
    step: Step


@dataclass(frozen=True)
class FeatureSpec:
    """The kind and the axes of a feature, found by value when a network is probed.

    Attributes:
        kind: "map" [B, C, H, W], "tokens" [B, L, C], "vector" [B, C], or "undecided" where the axes are unknown.
        channels: C; 0 if undecided.
        grid: (H, W) of a map; None otherwise.
        prefix: Number of leading tokens that were removed since they are no position, such as a class token.
        key: For an undecided feature, the setting that decides it.
    """

    kind: Literal["map", "tokens", "vector", "undecided"]
    channels: int
    grid: tuple[int, int] | None
    prefix: int
    key: str = ""


@dataclass(frozen=True)
class Shapes:
    """Shapes of a network's outputs without the batch axis, measured by a probe before training.

    Attributes:
        logits: Shape of the logits.
        features: Shape of each feature by role: (C, H, W) of maps, (L, C) of tokens, (C,) of vectors.
        specs: What features are, for networks whose axes were searched for.
    """

    logits: tuple[int, ...]
    features: Mapping[str, tuple[int, ...]]
    specs: Mapping[str, FeatureSpec] = field(default_factory=dict)

    def feature(self, role: str, whose: str = "network") -> tuple[int, ...]:
        """The shape of a role, see `find_role`.

        Raises:
            ValueError: There is no such role, or its axes are unknown; the message names the setting that decides.
        """
        found = find_role(role, self.features, whose)
        if found in self.specs and self.specs[found].kind == "undecided":
            shape = ", ".join(map(str, self.features[found]))
            raise ValueError(
                f"the axes of the {whose}'s '{found}' [B, {shape}] are ambiguous; {self.specs[found].key} states them"
            )
        return self.features[found]

    def inner_stages(self, whose: str = "network") -> list[str]:
        """Roles of the stages between the stem ("stage0") and the last stage, in order.

        Raises:
            ValueError: There are none.
        """
        stages = sorted(_stages(self.features) - {"stage0"}, key=_number)
        if len(stages) < 2:
            raise ValueError(f"the {whose} needs at least two stages; it has: {', '.join(stages) or 'none'}")
        return stages[:-1]


def _stages(roles: Iterable[str]) -> set[str]:
    return {r for r in roles if r.startswith("stage") and r.removeprefix("stage").isdigit()}


def _number(stage: str) -> int:
    return int(stage.removeprefix("stage"))


def find_role(role: str, roles: Iterable[str], whose: str) -> str:
    """The role itself; where there is no feature "last", it is the deepest stage.

    Raises:
        ValueError: There is no such role; the message names the known roles.

    Example:
        >>> find_role("last", ["stage1", "stage2", "pooled"], "student")
        'stage2'
    """
    roles = list(roles)
    if role == "last" and role not in roles and _stages(roles):
        return max(_stages(roles), key=_number)
    if role not in roles:
        raise ValueError(f"the {whose} has no feature with role '{role}'; it has: {', '.join(roles) or 'none'}")
    return role
