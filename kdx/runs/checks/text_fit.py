"""Checks whether the parts of a run fit a data set of text, before anything loads."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from kdx.config.schema import Node, RunConfig
from kdx.config.validate import locate
from kdx.core.errors import UserError, shown
from kdx.core.pretrained import tokenizer_file
from kdx.core.spec import InputSpec, Tokens
from kdx.data.views.augment import PLAIN
from kdx.runs.build import Light
from kdx.runs.ensemble_config import each_teacher


def text_misfits(config: RunConfig, light: Light) -> Iterator[str]:
    """A line for each part of a config that does not fit the texts of its data set; none for other inputs.

    Args:
        config: A config whose values are valid by themselves.
        light: Its light parts.
    """
    inputs, name = light.dataset.inputs, light.dataset.name
    if not isinstance(inputs, Tokens):
        return
    if light.augmentation != PLAIN:
        yield f"augmentation changes images, and dataset={name} has texts; set augmentation=none"
    teachers = {member: own.teacher for member, own in each_teacher(config).items() if own.teacher is not None}
    for own in teachers.values():
        if own.optimize == "int8":
            yield f"teacher.optimize=int8 quantises networks of images, and dataset={name} has texts; choose bf16"
    for key, node in config.evals.items():
        if getattr(locate(str(node["_target_"])), "reads_one_tensor", False):
            yield f"evals.{key} reads inputs that are one tensor, and dataset={name} has texts; leave it out"
    nodes: dict[str, Node] = {"student.net": config.student.net}
    nodes |= {f"teacher.members.{key}.net" if key else "teacher.net": own.net for key, own in teachers.items()}
    nodes |= {f"method.peers[{i}]": node for i, node in enumerate(config.method.get("peers") or ())}
    for key, node in nodes.items():
        if (reason := _other_tokenizer(node, config.dataset["tokenizer"], inputs)) is not None:
            yield f"{key}.tokenizer={reason}"


def too_long(nets: Mapping[str, nn.Module], inputs: InputSpec) -> Iterator[str]:
    """A line for each network, by its key, that reads fewer tokens than the longest texts have."""
    if not isinstance(inputs, Tokens):
        return
    for key, net in nets.items():
        most = getattr(net, "max_positions", None)
        if most is not None and inputs.length > most:
            yield f"{key} reads at most {most} tokens, and dataset.max_length is {inputs.length}; lower it to {most}"


def _other_tokenizer(node: Node, wanted: Any, inputs: Tokens) -> str | None:
    given = node.get("tokenizer")
    if given is None or given == wanted:
        return None
    try:
        if tokenizer_file(given, "tokenizer").fingerprint == inputs.tokenizer:
            return None
    except UserError as error:
        return str(error).partition("=")[2] or str(error)
    return (
        f"{shown(str(given))} is another tokenizer than dataset.tokenizer={shown(str(wanted))}: ids mean other tokens"
    )
