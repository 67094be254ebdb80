"""Schema of the parts of a config that have no `_target_`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from kdx.core.ranges import Count, NonNegative, OpenFraction, Positive, PositiveInt, Probability

Optimize = Literal["exact", "folded", "bf16", "int8"]


class Given:
    """Marks a node with a `_target_`, and names the arguments that the program adds to it."""

    def __init__(self, *names: str):
        self.names = frozenset(names)


@dataclass(frozen=True, kw_only=True)
class Student:
    net: Annotated[Any, Given()]
    checkpoint: str | None
    sha256: str | None
    experiment: str | None


@dataclass(frozen=True, kw_only=True)
class Member:
    """A teacher, alone or as a member of an ensemble."""

    net: Annotated[Any, Given()]
    checkpoint: str | None
    sha256: str | None
    experiment: str | None
    seed: Count
    recipe: Sequence[str]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    expected: float | None
    tolerance: Probability
    optimize: Optimize
    calibration_examples: PositiveInt
    max_kl: NonNegative
    min_agreement: Probability
    memo: bool
    memo_dtype: Literal["fp16", "fp32"]
    memo_features: Sequence[str]
    training: Mapping[str, Any] | None
    weight: Positive
    special_classes: Sequence[int] | None
    special_share: OpenFraction
    special_prior: OpenFraction | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Settings of the rule that combines a generalist with specialists."""

    top: PositiveInt
    direction: Literal["forward", "reverse"]
    steps: PositiveInt


@dataclass(frozen=True, kw_only=True)
class Teacher(Member):
    seeds: Sequence[Count] | None
    members: Mapping[str, Member] | None
    combine: Literal["arithmetic", "geometric", "specialists"]
    combine_temperature: Positive
    agreement: Agreement
    features: str | None
    shard: bool


@dataclass(frozen=True, kw_only=True)
class Paths:
    data: str
    outputs: str
    runs: str
    teachers: str
    memos: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """The top-level keys of a training config."""

    seed: Count
    data_seed: Count
    role: Literal["student", "teacher"]
    fresh: bool
    dataset: Annotated[Any, Given()]
    transfer: Annotated[Any, Given()]
    augmentation: Annotated[Any, Given()]
    student: Student
    teacher: Teacher | None
    method: Annotated[Any, Given("student", "teacher", "spec")]
    update: Annotated[Any, Given("method", "optimizer", "lr_schedule", "autocast")]
    optimizer: Annotated[Any, Given()]
    schedule: Annotated[Any, Given()]
    trainer: Annotated[Any, Given()]
    evals: Mapping[str, Annotated[Any, Given("loaders", "device", "task")]]
    logger: Annotated[Any, Given()]
    paths: Paths
    choices: Mapping[str, str | None]
