"""The config of an ensemble of teachers: its members, and the rule that combines their outputs."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from kdx.config.compose import Config
from kdx.config.networks import SAME, network_node
from kdx.config.schema import Member
from kdx.core.errors import UserError
from kdx.models.teachers.ensemble import ArithmeticMean, Ensemble, GeometricMean, Rule
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


def as_teacher(config: Config, name: str) -> Config:
    """The config with a member in place of the ensemble."""
    choices = {**config["choices"], "teacher": config["choices"][f"teacher.members.{name}"]}
    return {**config, "teacher": config["teacher"]["members"][name], "choices": choices}


def each_teacher(config: Config) -> dict[str, Config]:
    """The config for each teacher alone: by member name for an ensemble, under "" for a single teacher."""
    teacher = config.get("teacher")
    if not isinstance(teacher, dict):
        return {}
    return {name: as_teacher(config, name) for name in teacher.get("members") or ()} or {"": config}


def gather(config: Config, members: Mapping[str, Config]) -> None:
    """Put the filled members back into the config, and clear the keys that belong to members alone."""
    names = [_name(member) for member in members.values()]
    counts = {name: names.count(name) for name in names}
    called = "+".join(f"{n}x{name}" if n > 1 else name for name, n in counts.items())
    teachers = {name: member["teacher"] for name, member in members.items()}
    nothing: Config = {key: None for key in KEYS}
    given = [t["sha256"] for t in teachers.values() if t["sha256"] is not None]
    nothing |= {"net": {}, "sha256": together(given) if given else None}
    made = [t["experiment"] for t in teachers.values()]
    if given and None not in made:
        nothing["experiment"] = together(made)
    config["teacher"] = {**config["teacher"], **nothing, "seeds": None, "members": teachers}
    config["choices"] = {**config["choices"], "teacher": called}


def _name(config: Config) -> str:
    net = config["teacher"]["net"]
    return str(net["name"] if "name" in net else config["choices"]["teacher"])


def together(checksums: list[str]) -> str:
    """One checksum of several."""
    return hashlib.sha256("\n".join(checksums).encode()).hexdigest()


def ensemble(settings: Config, members: Mapping[str, nn.Module]) -> Ensemble:
    """Combine teachers into one network.

    Args:
        settings: The config's `teacher`.
        members: Networks by name.
    """
    weights = [member["weight"] for member in settings["members"].values()]
    nets = {name: members[name] for name in settings["members"]}
    return Ensemble(nets, _rule(settings, weights), weights, settings["features"])


def _rule(settings: Config, weights: list[float]) -> Rule:
    if settings["combine"] == "geometric":
        return GeometricMean(weights)
    if settings["combine"] == "arithmetic":
        return ArithmeticMean(weights, settings["combine_temperature"])
    keys = ("special_classes", "special_share", "special_prior")
    sets, trained, shares = ([member[key] for member in settings["members"].values()] for key in keys)
    return SpecialistConsensus(sets, trained, shares, **settings["agreement"])


def strays(config: Config) -> Iterator[str]:
    """Errors of configs in which specialists and the rule of the ensemble do not match."""
    teacher = config["teacher"]
    if teacher is None:
        return
    members, together = teacher["members"], teacher["combine"] == "specialists"
    if together and not members:
        yield "teacher.combine=specialists needs a generalist and specialists as teacher.members"
    if not together and any(member["special_classes"] for member in members.values() or [teacher]):
        yield "special_classes: specialists are teacher.members beside a generalist, with teacher.combine=specialists"
