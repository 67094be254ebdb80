"""Sets the input size of library networks that are built for one size."""

import json
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from kdx.config.schema import Node, RunConfig
from kdx.models.tap import plain
from kdx.runs.build import make, untrained
from kdx.runs.checks.notices import notices

TIMM, TORCHVISION = "kdx.models.build.timm_model", "kdx.models.build.torchvision_model"


def with_input_size(config: RunConfig) -> RunConfig:
    """The config with the size option of each network that fails at the data's size and takes one; a line says so.

    A network is tried on the meta device, without memory for its weights. Networks that work as they are, or whose
    size the config sets, are left alone.

    Args:
        config: A config whose values are valid by themselves.
    """
    shape = config.dataset.get("input_shape")
    if not isinstance(shape, list) or len(shape) != 3:
        return config
    channels, height, width = shape
    sized = partial(_sized, shape=(channels, height, width))
    student, teacher = replace(config.student, net=sized("student.net", config.student.net)), config.teacher
    if teacher is not None and teacher.members:
        own = {
            name: replace(member, net=sized(f"teacher.members.{name}.net", member.net))
            for name, member in teacher.members.items()
        }
        teacher = replace(teacher, members=own)
    elif teacher is not None:
        teacher = replace(teacher, net=sized("teacher.net", teacher.net))
    method = config.method
    if peers := method.get("peers"):
        method = {**method, "peers": [sized(f"method.peers[{i}]", node) for i, node in enumerate(peers)]}
    return replace(config, student=student, teacher=teacher, method=method)


def _sized(key: str, node: Node, shape: tuple[int, int, int]) -> Node:
    """A network's node with the option for its size if it needs one."""
    size = _size(json.dumps(untrained(node), sort_keys=True), shape) if _may_need(node) else None
    if size is None:
        return node
    option, value = next(iter(size.items()))
    notices([f"{key}.options.{option}={value}, the size of the images; {node['name']} is built for one size"])
    return {**node, "options": {**node["options"], **size}}


def _may_need(node: Node) -> bool:
    """Whether a network may be built for one size; a quick answer before the trial."""
    target, options = node["_target_"], node.get("options")
    if not isinstance(options, dict) or options.keys() & {"img_size", "image_size", "input_size"}:
        return False
    if target == TORCHVISION:  # torchvision refuses another size for its weights
        return node["weights"] is None and str(node["name"]).startswith(("vit_", "maxvit"))
    if target != TIMM:
        return False
    import timm

    try:
        facts = timm.get_pretrained_cfg(node["name"], allow_unregistered=True)
    except RuntimeError:  # an unknown name, which the dry run reports
        return False
    return bool(facts and facts.fixed_input_size)


@cache
def _size(node: str, shape: tuple[int, int, int]) -> dict[str, int | list[int]] | None:
    """The option that makes a network work on images of a shape; None if it works without, or with none."""
    config, (_, height, width) = json.loads(node), shape
    if _works(config, {}, shape):
        return None
    side = height if height == width else [height, width]
    for option in ("img_size",) if config["_target_"] == TIMM else ("image_size", "input_size"):
        value = [height, width] if option == "input_size" else side
        if _works(config, {option: value}, shape):
            return {option: value}
    return None


def _works(node: Node, size: dict[str, Any], shape: tuple[int, ...]) -> bool:
    try:
        with torch.device("meta"), torch.no_grad():
            net = plain(make({**node, "options": {**node["options"], **size}}))
            net.eval()(torch.empty(2, *shape))
    except Exception:  # libraries raise many types; the dry run reports what remains wrong
        return False
    return True
