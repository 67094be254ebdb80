"""The identity of a run: a hash of everything in its config that can change a number.

Called by `kdx.runs` (names of directories), `kdx.report` (groups of runs) and the studies. A change to what is hashed
gives every run a new name, so that finished runs are trained again: `tests/config/test_frozen_identities.py` guards it.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from kdx.config.aliases import frozen_target
from kdx.config.compose import Config
from kdx.config.former import with_former_defaults
from kdx.config.schema import RunConfig

# Keys that do not change the trained weights: output folders, display, machine. trainer.eval_batch_size changes the
# last digits of measurements by rounding.
NOT_IDENTITY = (
    "paths",
    "logger",
    "fresh",
    "reuse",
    "choices",
    "dataset.root",
    "dataset.index",
    "dataset.download",
    "dataset.verify",
    "dataset.cache",
    "dataset.source.root",
    "dataset.source.download",
    "dataset.source.verify",
    "dataset.photos.root",
    "dataset.photos.download",
    "dataset.photos.verify",
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
    "trainer.log_steps",
    "trainer.eval_batch_size",
    "teacher.checkpoint",
    "teacher.experiment",
    "teacher.expected",
    "teacher.expected_top1",  # the name in runs of 0.1
    "teacher.tolerance",
    "teacher.shard",
    "teacher.max_kl",
    "teacher.min_agreement",
    "student.checkpoint",
    "student.experiment",
)
# Keys that change results, but repeat others: `teacher.training` holds the full config of the teacher's own training.
REPEATED = ("teacher.recipe",)
# Keys that were added since names were frozen, with the value at which they change nothing; left out at this value.
NEUTRAL = {
    "dataset.max_examples": None,
    "dataset.drop_duplicates": False,
    "dataset.fraction_order": "rest",
    "dataset.label_noise": 0.0,
    "dataset.label_noise_seed": 0,
    "augmentation.repeats": 1,
    "student.checkpoint_share": 1.0,
    "transfer.rest_class": True,
}
# Seeds distinguish repetitions of one experiment.
SEEDS = ("seed", "data_seed")

SETS = re.compile(r"^evals\.[^.]+\.sets\.[^.]+\.")
MEMBER = re.compile(r"^teacher\.members\.[^.]+\.")


def identity(config: Config | RunConfig) -> str:
    """Hash of a resolved config, as 16 hex digits.

    Keys for which `counts` is false are left out. A given checkpoint enters by its content (`sha256`), a teacher that
    is trained first by its config (`training`), a class by its frozen name.
    """
    whole = leaves(config).items()
    return fingerprint({p: _frozen(p, value) for p, value in whole if counts(p) and not is_neutral(p, value)})


def experiment(config: Config | RunConfig) -> dict[str, Any]:
    """The values that repetitions of a run share, by dotted path: its identity without the seeds.

    A given checkpoint of a finished run enters by that run's experiment, so that the seeds of a chain are repetitions
    of each other. Null values are left out, like missing keys.
    """
    whole = leaves(config)
    kept = {
        path: value
        for path, value in whole.items()
        if counts(path) and not is_neutral(path, value) and not is_seed(path, whole)
    }
    kept |= {path: value for path, value in whole.items() if path.endswith(".experiment") and _is_checkpoint(path)}
    return {path: canonical(value) for path, value in kept.items() if value is not None}


def experiment_hash(config: Config | RunConfig) -> str:
    """Hash of `experiment`, as 16 hex digits."""
    return fingerprint({path: _frozen(path, value) for path, value in experiment(config).items()})


def seeds(config: Config | RunConfig) -> dict[str, Any]:
    """The values that distinguish a run from its repetitions, by dotted path: seeds, and checksums of weights."""
    whole = leaves(config)
    found = {path: value for path, value in whole.items() if counts(path) and is_seed(path, whole)}
    return {path: canonical(value) for path, value in found.items() if value is not None}


def canonical(value: Any) -> Any:
    """A value without its spelling: 4.0 becomes 4, and of an absolute path the last part remains.

    The files behind a path are compared when a result is used again (`kdx.runs.reuse`).
    """
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "~/")):
        return os.path.basename(os.path.normpath(value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fingerprint(facts: Any) -> str:
    """Hash of plain values, independent of the order of keys, as 16 hex digits; part of file names."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@cache  # the runs of a report share most paths
def left_out(path: str) -> bool:
    """Whether a key of the config changes no result of a run."""
    return _is_below(path, NOT_IDENTITY)


@cache
def counts(path: str) -> bool:
    """Whether a key of the config is part of a run's identity."""
    return not _is_below(path, NOT_IDENTITY + REPEATED)


def is_neutral(path: str, value: Any) -> bool:
    """Whether a newer key of the config has the value that older configs imply."""
    path = _as_own(path).removeprefix("transfer.unlabelled.")
    return path in NEUTRAL and value == NEUTRAL[path]


def is_seed(path: str, whole: dict[str, Any]) -> bool:
    """Whether a key distinguishes repetitions of one experiment.

    Args:
        path: The key.
        whole: All leaves of the config; a checksum counts as a seed if they name the run that trained the weights.
    """
    owner, _, key = path.rpartition(".")
    if key == "sha256":
        return whole.get(f"{owner}.experiment") is not None
    return key in SEEDS


def leaves(config: Config | RunConfig) -> dict[str, Any]:
    """The values of a config by dotted path."""
    return with_former_defaults(dict(_leaves(config.plain() if isinstance(config, RunConfig) else config)))


def differences(a: Config | RunConfig, b: Config | RunConfig) -> dict[str, tuple[Any, Any]]:
    """Paths at which two configs differ, with both values; None for a missing path."""
    left, right = leaves(a), leaves(b)
    return {
        path: (left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    }


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def _frozen(path: str, value: Any) -> Any:
    if path.endswith("_target_") and isinstance(value, str):
        return frozen_target(value)
    if isinstance(value, list):  # nodes in a list, such as peers, are part of this leaf
        return [_frozen_node(item) for item in value]
    return canonical(value)


def _frozen_node(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _frozen(str(key), value) if not isinstance(value, dict) else _frozen_node(value)
            for key, value in node.items()
        }
    return _frozen("", node)


def _is_below(path: str, names: tuple[str, ...]) -> bool:
    path = _as_own(path)
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _is_checkpoint(path: str) -> bool:
    return _as_own(path) in ("teacher.experiment", "student.experiment")


def _as_own(path: str) -> str:
    """The key without the member, the teacher's training or the evaluator's data set that it belongs to: all follow the
    same rules."""
    return SETS.sub("dataset.", MEMBER.sub("teacher.", path).removeprefix("teacher.training."))
