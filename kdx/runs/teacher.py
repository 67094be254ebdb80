"""Where a run's teacher comes from, and whether it is the teacher that was meant."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdx.config.compose import Config
from kdx.config.identity import fingerprint
from kdx.core.batch import Batch
from kdx.core.distributed import leader_first
from kdx.core.errors import UserError
from kdx.core.seed import derive
from kdx.core.task import Task
from kdx.data.loaders import Loaders
from kdx.data.regime import special
from kdx.evals.predictions import predictions
from kdx.evals.task_metrics import TaskMetrics
from kdx.models.teachers.ensemble import Ensemble
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.memo import Memo
from kdx.models.weights import save_weights, sha256
from kdx.runs.build import build_network, build_teacher
from kdx.runs.ensemble_config import each_teacher, ensemble, together
from kdx.runs.fill import weights_file
from kdx.runs.memo import agrees, memoised
from kdx.runs.optimize import optimized
from kdx.runs.prepare import network_name
from kdx.runs.results import Result
from kdx.tasks.classes import Classes


@dataclass(frozen=True)
class Teacher:
    """A teacher that passed its gate.

    Attributes:
        network: What methods ask.
        told: What results say of it, but for its memo.
        members: Of an ensemble, by name.
    """

    network: Frozen | Memo | Ensemble
    told: dict[str, Any]
    members: Mapping[str, "Teacher"] = field(default_factory=dict)
    _predicted: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def facts(self) -> dict[str, Any]:
        """What results say of it, as things stand."""
        if self.members:
            return {**self.told, "members": {name: member.facts for name, member in self.members.items()}}
        if not isinstance(self.network, Memo):
            return self.told
        memo = self.network
        asked = memo.misses / max(1, memo.misses + memo.hits)
        return {**self.told, "memo": {**self.told["memo"], "share_computed": round(asked, 4)}}

    def predictions(self, loader: Iterable[Batch], device: torch.device, task: Task) -> dict[str, Tensor]:
        """Its predictions on the test set, computed once."""
        if not self._predicted:
            self._predicted.update(predictions({"teacher": self.network}, loader, device, task))
        return self._predicted


Weights = Mapping[str, Path]  # of each teacher: under "" itself, or by name an ensemble's members


def find_weights(config: Config, train: Callable[[Config], Result]) -> Weights:
    """The teachers' weights: those given, or those of their own runs, trained now where there are none.

    Args:
        config: Prepared config of the student's run.
        train: The entry that runs a config; a teacher's run is a run like any other.
    """
    return {name: _find(own, train) for name, own in each_teacher(config).items()}


def _find(config: Config, train: Callable[[Config], Result]) -> Path:
    teacher = config["teacher"]
    if teacher["checkpoint"] is None:
        return leader_first(lambda: _as_built(config))
    if teacher["checkpoint"] != "auto":
        return weights_file(teacher["checkpoint"], "teacher.checkpoint")
    return train(teacher["training"]).student


def _as_built(config: Config) -> Path:
    """The weights that a network is built with, kept: later runs have the same, with or without a network."""
    teacher, name = config["teacher"], network_name(config, "teacher").replace("/", "_")
    seed = derive(teacher["seed"], "teacher")  # not the weights that a student of this seed starts from
    key = fingerprint([teacher["net"], seed])
    path = Path(config["paths"]["teachers"]) / f"{name}-as-built-{key}.safetensors"
    if not path.exists():
        save_weights(path, build_network(teacher["net"], seed), {})
    return path


def load_teacher(config: Config, weights: Weights, loaders: Loaders, device: torch.device) -> Teacher:
    """Build the teacher, measure it on the test set and hold it against what was expected.

    Each member of an ensemble passes a gate of its own; the facts have theirs under "members".

    Raises:
        UserError: The weights belong to another network, or a teacher misses its expected accuracy, or it strays
            too far from itself by being optimised.
    """
    if "" in weights:
        return _load(config, weights[""], loaders, device)
    members = {name: _load(own, weights[name], loaders, device) for name, own in each_teacher(config).items()}
    network = ensemble(config["teacher"], {name: member.network for name, member in members.items()}).to(device)
    measured = TaskMetrics(loaders.evals, device, loaders.spec.task, "test", "teacher", None).measure(network)
    told = {
        "net": network_name(config, "teacher"),
        "sha256": together([member.told["sha256"] for member in members.values()]),
        "weights": None,
        "trained_by": None,
        **{f"test/{name}": value for name, value in measured.items()},
    }
    return Teacher(network, told, members)


def _seen_by(classes: Sequence[int] | None, loaders: Loaders) -> Iterable[Batch]:
    """The test set with the labels of a specialist."""
    for batch in loaders.evals["test"]:
        if classes is not None:
            batch = batch.with_targets(labels=special(batch.labels, classes, loaders.spec.num_classes))
        yield batch


def _load(config: Config, weights: Path, loaders: Loaders, device: torch.device) -> Teacher:
    settings = config["teacher"]
    classes = settings["special_classes"]
    # a specialist has an output for each of its classes and one for all others
    task = loaders.spec.task if classes is None else Classes(len(classes) + 1)
    network, told = optimized(config, build_teacher(config, weights).to(device), loaders, device)
    test = {"test": _seen_by(classes, loaders)}
    measured = TaskMetrics(test, device, task, "test", "teacher", None).measure(network)
    expected, tolerance, primary = settings["expected"], settings["tolerance"], task.primary
    reached = measured[primary.name]
    # the wrong way round, so that NaN does not pass
    if expected is not None and not primary.sign * (reached - expected) >= -tolerance:
        raise UserError(
            f"the teacher {weights} reaches a test {primary.label} of {reached:.4f}, but teacher.expected is "
            f"{expected} (tolerance {tolerance}); give another teacher.checkpoint, train it longer, or say "
            "teacher.expected=null to distil from it all the same"
        )
    facts = {
        "net": network_name(config, "teacher"),
        "sha256": sha256(weights),
        "weights": str(weights),
        "trained_by": None if settings["training"] is None else weights.parent.name,
        **told,
        **{f"test/{name}": value for name, value in measured.items()},
    }
    if not settings["memo"]:
        return Teacher(network, facts)
    memo = memoised(config, network, facts["sha256"], loaders, device)
    same = settings["memo_dtype"] == "fp32" and agrees(network, loaders, device)
    facts["memo"] = {"table": memo.table.folder.name, "dtype": settings["memo_dtype"], "bits_as_without": same}
    return Teacher(memo, facts)
