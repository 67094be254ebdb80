"""The classes and functions that the config of a finished run may build.

A finished run may come from someone else. `kdx report predict=true` builds its data set and networks again, and a
`_target_` may name any function that Python can import. Only these are built: the targets of kdx's YAML files and of
the user's own config folders, and the classes of the rooms that hold parts and touch no files.
"""

import importlib
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from kdx.config.compose import Config
from kdx.config.layout import OWN, config_dirs

# rooms whose classes compute, and open no file
ROOMS = (
    "kdx.losses.",
    "kdx.methods.",
    "kdx.evals.",
    "kdx.data.views.",
    "kdx.engine.optim.",
    "kdx.models.cifar.",
    "kdx.core.schedule",
)
# of the rest of the library, a run's config names only these rooms
PARTS = (*ROOMS, "kdx.data.", "kdx.engine.", "kdx.models.")
HYDRA = ("_args_", "_recursive_", "_mode_")  # keys by which Hydra passes what no signature shows


def refusals(config: Config) -> list[str]:
    """A line for each node of a finished run's config that must not be built, and for each interpolation."""
    return [f"{path}: {problem}" for path, problem in _refusals(config, "")]


def is_part(target: str) -> bool:
    """Whether the config of a finished run may build this class or function.

    Example:
        >>> is_part("kdx.losses.logits.kd.KD"), is_part("torch.hub.load")
        (True, False)
    """
    if target in _named(os.environ.get(OWN)):
        return True
    module, _, name = target.rpartition(".")
    if not target.startswith(ROOMS) or not re.fullmatch(r"[A-Za-z]\w*", name):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__ == module


def _refusals(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if "_target_" in node and not (isinstance(target := node["_target_"], str) and is_part(target)):
            yield f"{path}._target_", f"{node['_target_']!r:.80} is no part of kdx or of your own config folders"
        for key, value in node.items():
            if key in HYDRA or not isinstance(key, str | int):
                yield path, f"the key {key!r:.40} is not accepted in the config of a finished run"
            yield from _refusals(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from _refusals(value, f"{path}[{place}]")
    elif isinstance(node, str) and "${" in node:
        yield path, f"{node!r:.80} is an interpolation, and a finished run has values"


@cache
def _named(own: str | None) -> frozenset[str]:
    """The targets that kdx's and the user's YAML files name. `own` is the user's folders, so that a change counts."""
    shipped, *folders = config_dirs()
    found = {target for target in _targets(shipped) if target.startswith(PARTS)}
    return frozenset(found.union(*map(_targets, folders)))


def _targets(folder: Path) -> set[str]:
    texts = (path.read_text() for path in folder.rglob("*.yaml"))
    return {target for text in texts for target in re.findall(r"_target_:\s*[\"']?([A-Za-z_][\w.]*)", text)}
