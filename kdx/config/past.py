"""Reads the config in a run's directory, and converts older versions to the present one."""

import re
from functools import cache
from pathlib import Path

import yaml

from kdx.config.aliases import with_current_targets
from kdx.config.compose import Config
from kdx.core.errors import DamagedError, one_line, reason

# the C loader, where PyYAML has it, is ten times as fast
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(path: Path) -> Config:
    """Read the `config.yaml` of a run of this or an older version.

    Raises:
        DamagedError: The file cannot be read, or is not the config of a run.
    """
    try:
        return parse_config(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DamagedError(reason(error)) from None
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {_why(error)}") from None


def parse_config(text: str) -> Config:
    """The config of a run from its YAML text. Raises ValueError, TypeError or YAMLError if it is none."""
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, LOADER)):
        raise ValueError(
            "it has aliases (*name), which no run writes"
        )  # a few lines of them can hold billions of values
    # runs of a sweep share most of their config, so each top-level block is cached
    config: Config = {}
    for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE):
        if block.strip():
            config |= _block(block)
    if not {"dataset", "method", "student", "trainer", "choices"} <= config.keys():
        raise ValueError("it is not the config of a run")
    return _completed(config)


def _completed(config: Config) -> Config:
    """Add the keys that configs of version 0.1 lack. All runs then had the random streams of a student."""
    changes: Config = {}
    if "role" not in config:
        changes["role"] = "student"
    if isinstance(student := config.get("student"), dict):
        changes["student"] = {"experiment": None, **student}
    if isinstance(teacher := config.get("teacher"), dict):
        changes["teacher"] = _completed_teacher(teacher)
    return {**config, **changes}


def _completed_teacher(teacher: Config) -> Config:
    teacher = {"experiment": None, **teacher}
    if "expected_top1" in teacher:
        teacher["expected"] = teacher.pop("expected_top1")
    if isinstance(teacher.get("training"), dict):
        teacher["training"] = _completed(teacher["training"])
    if isinstance(teacher.get("members"), dict):
        teacher["members"] = {name: _completed_teacher(member) for name, member in teacher["members"].items()}
    return teacher


@cache
def _block(text: str) -> Config:
    found = with_current_targets(yaml.load(text, Loader=LOADER))
    if not isinstance(found, dict):
        raise ValueError(f"it has no key before {text.strip()!r:.40}")
    return found


def _why(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.YAMLError):
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not valid YAML"
        return f"{problem}" + ("" if mark is None else f" near {mark.line + 1}:{mark.column + 1} of a block")
    return one_line(str(error)) or type(error).__name__
