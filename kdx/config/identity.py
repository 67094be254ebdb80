"""What makes two runs the same run."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from kdx.config.compose import Config

# Where a run is written, how it is shown and which machine does it: none of these is the experiment.
NOT_IDENTITY = (
    "paths",
    "logger",
    "fresh",
    "choices",
    "dataset.root",
    "dataset.index",
    "dataset.download",
    "dataset.verify",
    "transfer.unlabelled.path",
    "transfer.unlabelled.dataset.root",
    "transfer.unlabelled.dataset.index",
    "transfer.unlabelled.dataset.download",
    "transfer.unlabelled.dataset.verify",
    "trainer.device",
    "trainer.threads",
    "trainer.num_workers",
    "trainer.checkpoint_seconds",
    "trainer.cuda_graph",
    "teacher.checkpoint",
    "teacher.expected",
    "teacher.tolerance",
    "teacher.shard",
    "teacher.max_kl",
    "teacher.min_agreement",
    "student.checkpoint",
)

MEMBER = re.compile(r"^teacher\.members\.[^.]+\.")


def identity(config: Config) -> str:
    """Hash of a resolved config, as 16 hex digits.

    Paths and logging are left out, and 4 is 4.0; a given checkpoint counts by its content (`sha256`), which the
    config carries, and a teacher to be trained by its own config (`training`).
    """
    kept = {path: _as_number(value) for path, value in _leaves(config) if not left_out(path)}
    return fingerprint(kept)


def _as_number(value: Any) -> Any:
    """A value with whole numbers written in one way, which a command line writes as it likes."""
    if isinstance(value, list):
        return [_as_number(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fingerprint(facts: Any) -> str:
    """Hash of plain values, whatever the order of their keys, as 16 hex digits: what files are named by."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def left_out(path: str) -> bool:
    """Whether a key of the config has no part in what a run is."""
    # a member of an ensemble is a teacher, and the config that trains a teacher a config like any other
    path = MEMBER.sub("teacher.", path).removeprefix("teacher.training.")
    return any(path == name or path.startswith(f"{name}.") for name in NOT_IDENTITY)


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Paths at which two configs differ, with both values; None where one lacks the path."""
    left, right = dict(_leaves(a)), dict(_leaves(b))
    return {
        path: (left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    }
