"""Reads the config in a run's directory, and converts older versions to the present one."""

import re
from functools import cache
from pathlib import Path

import yaml

from kdx.config.aliases import with_current_targets
from kdx.config.compose import Config

# the C loader, where PyYAML has it, is ten times as fast
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(path: Path) -> Config:
    """Read the `config.yaml` of a run of this or an older version.

    Raises:
        OSError: The file cannot be read.
        yaml.YAMLError: The file is not valid YAML.
    """
    # runs of a sweep share most of their config, so each top-level block is cached
    config: Config = {}
    for block in re.split(r"^(?=\w)", path.read_text(), flags=re.MULTILINE):
        if block.strip():
            config |= _block(block)
    return _with_role(config)


def _with_role(config: Config) -> Config:
    """Add the role to a config of a version without roles: all runs then had the random streams of a student."""
    teacher = config.get("teacher")
    if isinstance(teacher, dict):
        config = {**config, "teacher": _with_trained_roles(teacher)}
    return config if "role" in config else {**config, "role": "student"}


def _with_trained_roles(teacher: Config) -> Config:
    teacher = dict(teacher)
    if isinstance(teacher.get("training"), dict):
        teacher["training"] = _with_role(teacher["training"])
    if isinstance(teacher.get("members"), dict):
        teacher["members"] = {name: _with_trained_roles(member) for name, member in teacher["members"].items()}
    return teacher


@cache
def _block(text: str) -> Config:
    return with_current_targets(yaml.load(text, Loader=LOADER))
