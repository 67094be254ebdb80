"""Checks a composed config and completes it to the full config of a run.

A teacher's own training is prepared as the run that needs it, so both stay in one file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from kdx.config.compose import Composed, Config, ConfigError, compose
from kdx.config.layout import ROLES
from kdx.config.schema import Member, RunConfig, run_config
from kdx.config.validate import locate, validate
from kdx.runs.build import Light, build_light
from kdx.runs.checks.distributed import unsharded
from kdx.runs.checks.dry_run import rehearse
from kdx.runs.checks.input_size import with_input_size
from kdx.runs.checks.values import misfits, wrong_durations
from kdx.runs.ensemble_config import as_member, each_teacher, gather, name_members, strays
from kdx.runs.fill import fill_average, fill_checksums, fill_folders, fill_images, fill_peers

# Keys of the data set that a teacher's own training does not share: they limit the student's training set. The
# validation split is shared: examples that select a student must be unseen by its teacher, too.
REGIME = ("fraction", "fraction_seed", "fraction_order", "train_subset", "max_examples")
# Groups whose option a teacher's own training takes from the run that needs it
SHARED_CHOICES = ("dataset", "recipe", "trainer", "debug")
# Keys of the trainer that depend on the machine, the same for both
SHARED_VALUES = ("device", "threads", "num_workers", "checkpoint_seconds")


@dataclass(frozen=True)
class Prepared:
    """A checked config, and the parts that the checks built and that its run can use."""

    config: RunConfig
    light: Light


def prepare(composed: Composed) -> RunConfig:
    """Check a config and fill in the values that it implies.

    A teacher that the method does not use is dropped, with the evaluators that need it, so that it is no part of the
    run's identity. Peers become nodes of networks, and members of an ensemble full teachers. A given checkpoint gets
    its checksum, a teacher with given weights the seed 0, and a teacher to be trained its own full config.

    Raises:
        ConfigError: With a line for each error.
    """
    return prepare_with_parts(composed).config


def prepare_with_parts(composed: Composed) -> Prepared:
    """`prepare`, with the parts that it built."""
    prepared = _examine(composed)
    rehearse(prepared.config, prepared.light)
    for own in each_teacher(prepared.config).values():
        assert own.teacher is not None
        if own.teacher.training is not None:
            with _reported_as("the teacher's own training"):
                rehearse(own.teacher.training)
    return prepared


def examine(composed: Composed) -> RunConfig:
    """The part of `prepare` that builds no networks: checks of the config's values.

    Raises:
        ConfigError: With a line for each error.
    """
    return _examine(composed).config


def _examine(composed: Composed) -> Prepared:
    config = {**composed.config, "choices": composed.choices}
    config.pop("experiment", None)
    config.pop("debug", None)
    config.pop("recipe", None)
    if gone := [field.name for field in fields(RunConfig) if field.name not in config]:
        validate(config, composed.interpolated)  # reports these among all errors
        raise ConfigError([f"missing key '{key}'" for key in gone])
    _drop_unused(config)
    if base := [role for role in ROLES if composed.choices.get(role) == "base"]:
        raise ConfigError([f"unknown {role} 'base'; `kdx list models` shows the networks" for role in base])
    fill_average(config)
    problems = [*fill_peers(config), *name_members(config), *fill_checksums(config), *fill_images(config)]
    problems += fill_folders(config)
    try:
        validate(config, composed.interpolated)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    typed, light = run_config(config), None
    problems += [*unsharded(typed), *strays(typed)]
    try:
        light = build_light(typed, list(wrong_durations(typed)))
        problems += misfits(typed, light)
    except ConfigError as error:
        problems += error.problems
    if problems or light is None:
        raise ConfigError(problems)
    return Prepared(_with_trainings(with_input_size(typed)), light)


def _with_trainings(config: RunConfig) -> RunConfig:
    """The config with that of the training of each teacher that has no weights."""
    if config.teacher is None:
        return config
    members: dict[str, Member] = {}
    for name, own in each_teacher(config).items():
        assert own.teacher is not None
        trained = own.teacher
        if trained.checkpoint == "auto":
            trained = replace(trained, training=_teacher_training(own, trained))
        if not name:
            return replace(config, teacher=trained)
        members[name] = as_member(trained)
    return gather(config, members)


@contextmanager
def _reported_as(prefix: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError([f"{prefix}: {line}" for line in error.problems]) from None


def _drop_unused(config: Config) -> None:
    try:
        method = locate(str(config["method"]["_target_"]))
        evaluators = {name: locate(str(node["_target_"])) for name, node in config["evals"].items()}
    except (KeyError, TypeError, ValueError):
        return  # validation reports the error
    teacher, peers = getattr(method, "uses_teacher", True), getattr(method, "has_peers", False)
    config["teacher"] = config["teacher"] if teacher else None
    config["evals"] = {
        name: node
        for name, node in config["evals"].items()
        if (teacher or not getattr(evaluators[name], "needs_teacher", False))
        and (peers or not getattr(evaluators[name], "needs_peers", False))
    }


def network_name(config: RunConfig, role: Literal["student", "teacher"]) -> str:
    """Name of a network: its name in timm or torchvision if it is one of theirs, else its option."""
    owner = getattr(config, role)
    return str(owner.net["name"] if "name" in owner.net else config.choices[role])


def _teacher_training(config: RunConfig, teacher: Member) -> RunConfig:
    choices = config.choices
    shared = [f"{group}={choices[group]}" for group in SHARED_CHOICES if choices.get(group)]
    # data sets inside the data set
    shared += [f"{group}={choice}" for group, choice in choices.items() if group.startswith("dataset@dataset.")]
    transfer = config.transfer
    own = ["role=teacher", "method=supervised", f"student={choices['teacher']}", f"seed={teacher.seed}"]
    # repeated as overrides, since some configs do not compose without them: ImageFolder's needs a folder
    facts = [o for o in _assignments("dataset", config.dataset) if o.split("=")[0].split(".")[1] not in REGIME]
    facts += _assignments("student.net", teacher.net)
    if transfer["held_out"]:
        # the teacher sees the other part
        own.append("transfer=heldout")
        facts += _assignments("transfer", {key: transfer[key] for key in ("held_out", "held_out_seed")})
        facts.append("transfer.part=rest")
    if teacher.special_classes is not None:
        facts += _assignments("transfer", {key: getattr(teacher, key) for key in ("special_classes", "special_share")})
    if not any(str(o).startswith("teacher=") for o in teacher.recipe):
        # the training has no teacher, but the option that the recipe sets may not compose without a name
        own.append(f"teacher={choices['teacher']}")
        facts += _assignments("teacher.net", teacher.net)
    with _reported_as("teacher.recipe"):
        composed = compose([*shared, *own, *facts, *map(str, teacher.recipe)])
    training = composed.config
    training["student"]["net"] = teacher.net
    training["paths"] = config.plain()["paths"]
    training["logger"] = config.logger
    for key in SHARED_VALUES:
        training["trainer"][key] = config.trainer[key]
    with _reported_as("teacher.recipe" if teacher.recipe else "the teacher's own training"):
        return examine(Composed(training, composed.choices, composed.interpolated))


def _assignments(prefix: str, node: Config) -> list[str]:
    """Overrides that set the plain values of a node and its objects, and all values of its `_partial_` nodes."""
    plain = [f"{prefix}.{k}={_literal(v)}" for k, v in node.items() if k != "_target_" and not isinstance(v, dict)]
    made = {k: v for k, v in node.items() if isinstance(v, dict) and v.get("_partial_")}
    for key, own in node.items():
        if isinstance(own, dict) and "_target_" in own and key not in made:
            plain += _assignments(f"{prefix}.{key}", own)
    return plain + [f"++{prefix}.{k}.{key}={_literal(v)}" for k, own in made.items() for key, v in own.items()]


def _literal(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(_literal, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)
