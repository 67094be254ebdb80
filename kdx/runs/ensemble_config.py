"""The config of an ensemble of teachers: its members, and the rule that combines their outputs."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from torch import nn

from kdx.config.compose import Config
from kdx.config.networks import SAME, network_node
from kdx.config.schema import Member, RunConfig, Teacher
from kdx.core.errors import UserError
from kdx.core.task import CLASSES, LABELS, VALUES, Task
from kdx.models.teachers.ensemble import ArithmeticMean, Ensemble, GeometricMean, LabelMean, Rule
from kdx.models.teachers.specialists import SpecialistConsensus

KEYS = tuple(f.name for f in fields(Member))
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def name_members(config: Config) -> list[str]:
    """Expand `teacher.seeds` or `teacher.members` to the full config of each member, in place.

    Members are sorted by name, so that their order in the config does not change the run's identity. `choices` gets
    the option of each member's network.

    Returns:
        A line for each error.
    """
    teacher = config.get("teacher")
    if not isinstance(teacher, dict) or not {"seeds", "members"} <= teacher.keys():
        return []  # validation reports the error
    seeds, members = teacher["seeds"], teacher["members"]
    config["teacher"] = {**teacher, "members": {}}
    if seeds is not None and members:
        return ["teacher.seeds and teacher.members both name members; give one of the two"]
    if isinstance(seeds, list):
        if not seeds or len(set(map(str, seeds))) < len(seeds):
            return [f"teacher.seeds: must be different numbers, at least one, found {seeds}"]
        if (given := teacher["checkpoint"]) not in ("auto", None):
            return [
                f"teacher.seeds trains a teacher for each seed, but teacher.checkpoint={given} is trained; drop one"
            ]
        members = {f"seed{seed}": {"seed": seed} for seed in seeds}
    if members is None:
        return []
    if not isinstance(members, dict):
        return [f"teacher.members: must be members by name, found {members!r}"]
    own = {key: value for key, value in teacher.items() if key in KEYS}
    whole: dict[str, Config] = {}
    problems = []
    for name, changes in sorted(members.items()):
        if not NAME.fullmatch(str(name)):
            problems.append(f"teacher.members: a name has letters, digits, _ and -, unlike '{name}'")
        elif not isinstance(changes, dict):
            problems.append(f"teacher.members.{name}: must be keys with values, found {changes!r}")
        else:
            try:
                word, net = _network(changes.get("net", SAME), teacher["net"], config)
                whole[name] = {**own, **changes, "net": net}
                if "recipe" in changes and whole[name]["checkpoint"] != "auto":
                    problems.append(f"teacher.members.{name}: {idle_recipe(whole[name]['checkpoint'])}")
                config["choices"] = {**config["choices"], f"teacher.members.{name}": word}
            except UserError as error:
                problems.append(f"teacher.members.{name}.net: {error}")
    config["teacher"] = {**teacher, "members": whole}
    return problems


def idle_recipe(checkpoint: str | None) -> str:
    """The error for a recipe beside a checkpoint that needs no training."""
    given = "null" if checkpoint is None else checkpoint
    return f"recipe configures the training of a teacher, but checkpoint={given} trains none; leave one of the two out"


def _network(net: Any, same: Config, config: Config) -> tuple[str | None, Config]:
    """The option of a member's network, and its node."""
    if isinstance(net, dict) and "_target_" not in net and "model" not in net:
        net = {"model": SAME, **net}
    word = net["model"] if isinstance(net, dict) and "model" in net else net
    chosen = word if isinstance(word, str) and word != SAME else config["choices"].get("teacher")
    return chosen, network_node(net, same, config["dataset"])


def each_teacher(config: RunConfig) -> dict[str, RunConfig]:
    """The config for each teacher alone: by member name for an ensemble, under "" for a single teacher."""
    if config.teacher is None:
        return {}
    return {name: _alone(config, config.teacher, name) for name in config.teacher.members or ()} or {"": config}


def _alone(config: RunConfig, ensemble: Teacher, name: str) -> RunConfig:
    """The config with a member in place of the ensemble."""
    assert ensemble.members is not None
    teacher = replace(ensemble, **_values(ensemble.members[name]), seeds=None, members={}, shard=False)
    choices = {**config.choices, "teacher": config.choices[f"teacher.members.{name}"]}
    return replace(config, teacher=teacher, choices=choices)


def gather(config: RunConfig, members: Mapping[str, Member]) -> RunConfig:
    """The config with the filled members; the keys that belong to members alone are null."""
    assert config.teacher is not None
    names = [_name(config, name, member) for name, member in members.items()]
    counts = {name: names.count(name) for name in names}
    called = "+".join(f"{n}x{name}" if n > 1 else name for name, n in counts.items())
    given = [member.sha256 for member in members.values() if member.sha256 is not None]
    made = [member.experiment for member in members.values() if member.experiment is not None]
    nothing: Config = {key: None for key in KEYS} | {"net": {}}
    if given:
        nothing["sha256"] = together(given)
    if given and len(made) == len(members):
        nothing["experiment"] = together(made)
    teacher = replace(config.teacher, **nothing, seeds=None, members=members)
    return replace(config, teacher=teacher, choices={**config.choices, "teacher": called})


def as_member(teacher: Member) -> Member:
    """The keys of a member of an ensemble, from those of a teacher."""
    return Member(**_values(teacher))


def _values(member: Member) -> Config:
    return {key: getattr(member, key) for key in KEYS}


def _name(config: RunConfig, name: str, member: Member) -> str:
    return str(member.net["name"] if "name" in member.net else config.choices[f"teacher.members.{name}"])


def together(checksums: list[str]) -> str:
    """One checksum of several."""
    return hashlib.sha256("\n".join(checksums).encode()).hexdigest()


def ensemble(settings: Teacher, members: Mapping[str, nn.Module], task: Task) -> Ensemble:
    """Combine teachers into one network.

    Args:
        settings: The config's `teacher`.
        members: Networks by name.
        task: The task of the data set; see `misfits` for its kind.
    """
    assert settings.members is not None
    weights = [member.weight for member in settings.members.values()]
    nets = {name: members[name] for name in settings.members}
    return Ensemble(nets, _rule(settings, list(settings.members.values()), task), weights, settings.features)


def _rule(settings: Teacher, members: Sequence[Member], task: Task) -> Rule:
    weights = [member.weight for member in members]
    if settings.combine == "geometric" or task.kind == VALUES:
        return GeometricMean(weights)  # of values, the arithmetic mean
    if task.kind == LABELS:
        return LabelMean(weights, settings.combine_temperature)
    if settings.combine == "arithmetic":
        return ArithmeticMean(weights, settings.combine_temperature)
    return SpecialistConsensus(
        [member.special_classes for member in members],
        [member.special_share for member in members],
        [member.special_prior for member in members],
        settings.agreement.top,
        settings.agreement.direction,
        settings.agreement.steps,
    )


def misfits(teacher: Teacher, task: Task, dataset: str) -> Iterator[str]:
    """Errors of ensembles whose rule has no meaning for a task.

    Args:
        teacher: The config's `teacher`.
        task: The task of the data set.
        dataset: Name of the data set, for messages.
    """
    if not teacher.members or task.kind == CLASSES:
        return
    has = f"dataset={dataset} has {task.kind}"
    if task.kind not in (VALUES, LABELS):
        yield f"an ensemble as teacher needs a task with classes, values or labels, and {has}"
    elif teacher.combine == "specialists":
        yield f"teacher.combine=specialists needs a task with classes, and {has}"
    elif task.kind == VALUES and teacher.combine == "geometric":
        yield f"teacher.combine=geometric averages predicted probabilities, and {has}; set teacher.combine=arithmetic"
    elif task.kind == VALUES and teacher.combine_temperature != 1:
        yield f"teacher.combine_temperature scales logits, and {has}; set teacher.combine_temperature=1"


def strays(config: RunConfig) -> Iterator[str]:
    """Errors of configs in which specialists and the rule of the ensemble do not match."""
    teacher = config.teacher
    if teacher is None:
        return
    members, together = teacher.members or {}, teacher.combine == "specialists"
    if together and not members:
        yield "teacher.combine=specialists needs a generalist and specialists as teacher.members"
    if not together and any(member.special_classes for member in members.values() or [teacher]):
        yield "special_classes: specialists are teacher.members beside a generalist, with teacher.combine=specialists"
