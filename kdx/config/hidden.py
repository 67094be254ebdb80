"""Keys that an option leaves open with `???`, but that a null of its base hides.

In OmegaConf `???` does not replace a value, so an option cannot take back what its base sets: `special_classes: ???`
over `special_classes: null` would train without the classes, and under the identity of a run without them.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kdx.config.layout import config_file

OPEN = "???"
PACKAGE = re.compile(r"^# @package (\S+)", re.MULTILINE)


def hidden(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> list[str]:
    """Dotted paths of keys that a chosen option leaves open, and that are null in the composed config.

    Args:
        config: Resolved.
        choices: The option of each group, such as {"transfer": "specialist", "model@student.net": "mlp_30"}.
    """
    found: dict[str, bool] = {}
    for choice, option in choices.items():
        group, _, package = choice.partition("@")
        if option is not None and "hydra" not in choice:
            found |= dict(_keys(group, option, package or group.replace("/", ".")))
    return [path for path, is_open in found.items() if is_open and _is_null(config, path)]


def _keys(group: str, option: str, package: str) -> Iterator[tuple[str, bool]]:
    """The keys that an option and its bases set, in the order of merging, and whether each is left open."""
    try:
        path = config_file(group, option)
    except StopIteration:
        return  # registered by the program, without keys of its own
    body, header = _read(path, path.stat().st_mtime_ns)
    package = {None: package, "_global_": ""}.get(header, header or "")
    bases = body.get("defaults") or []
    own = list(_leaves({key: value for key, value in body.items() if key != "defaults"}, package))
    for base in [*bases, *([] if "_self_" in bases else ["_self_"])]:
        if base == "_self_":
            yield from own
        elif isinstance(base, str) and not base.startswith("/"):  # other groups are among the choices
            yield from _keys(group, base, package)


@cache
def _read(path: Path, _time: int) -> tuple[dict[str, Any], str | None]:
    text = path.read_text()
    header = PACKAGE.search(text)
    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError:
        body = None  # composing reports it
    return body if isinstance(body, dict) else {}, header[1] if header else None


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, bool]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node == OPEN


def _is_null(config: Mapping[str, Any], path: str) -> bool:
    """Whether a key, or a node above it, is null; false for a key that is missing."""
    node: Any = config
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return node is None
        node = node[key]
    return node is None
