"""The config of a run as typed values; its annotations are the schema of the keys that have no `_target_`.

Code above this room reads these classes. The nodes with a `_target_`, such as `dataset`, stay plain: the constructor
of the class that each names is their schema.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal

from kdx.core.ranges import Count, NonNegative, OpenFraction, Positive, PositiveInt, Probability

Node = dict[str, Any]  # a part of a config as plain values
Optimize = Literal["exact", "folded", "bf16", "int8"]


class Given:
    """Marks a node with a `_target_`, and names the arguments that the program adds to it."""

    def __init__(self, *names: str):
        self.names = frozenset(names)


@dataclass(frozen=True, kw_only=True)
class Student:
    net: Annotated[Node, Given()]
    checkpoint: str | None
    sha256: str | None
    experiment: str | None
    checkpoint_share: Probability = 1.0  # for the configs of runs that were finished before this key


@dataclass(frozen=True, kw_only=True)
class Member:
    """A teacher, alone or as a member of an ensemble."""

    net: Annotated[Node, Given()]
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
    training: "RunConfig | None"
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
    """A teacher, or an ensemble; the keys of `Member` are null in a prepared ensemble, whose members have them."""

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
class RunConfig:
    """The config of a training. `dataclasses.replace` changes it."""

    seed: Count
    data_seed: Count
    role: Literal["student", "teacher"]
    fresh: bool
    reuse: bool
    dataset: Annotated[Node, Given()]
    transfer: Annotated[Node, Given()]
    augmentation: Annotated[Node, Given()]
    student: Student
    teacher: Teacher | None
    method: Annotated[Node, Given("student", "teacher", "spec")]
    update: Annotated[Node, Given("method", "optimizer", "lr_schedule", "autocast")]
    optimizer: Annotated[Node, Given()]
    schedule: Annotated[Node, Given()]
    trainer: Annotated[Node, Given()]
    evals: Mapping[str, Annotated[Node, Given("loaders", "device", "task")]]
    logger: Annotated[Node, Given()]
    paths: Paths
    choices: Mapping[str, str | None]

    def plain(self) -> Node:
        """The config as plain values, for hashes and files; `run_config` reads them."""
        return _plain(self)


def run_config(config: Node) -> RunConfig:
    """Typed view of a valid config.

    Args:
        config: Plain values with all keys of the schema; see `kdx.config.validate`.
    """
    teacher = None if config["teacher"] is None else _teacher(config["teacher"])
    typed = {"student": Student(**config["student"]), "teacher": teacher, "paths": Paths(**config["paths"])}
    return RunConfig(**{**config, **typed})


def _teacher(node: Node) -> Teacher:
    members = node["members"]
    typed = {
        **_trained(node),
        "members": None if members is None else {name: Member(**_trained(own)) for name, own in members.items()},
        "agreement": Agreement(**node["agreement"]),
    }
    return Teacher(**typed)


def _trained(node: Node) -> Node:
    return {**node, "training": None if node["training"] is None else run_config(node["training"])}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
