"""Finds, loads and measures a run's teacher, and refuses it if it misses its expected accuracy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdx.config.identity import fingerprint
from kdx.config.schema import RunConfig
from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.files import as_file_name
from kdx.core.metric import Metric
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
from kdx.runs.build import build_network, build_teacher, inputs_of
from kdx.runs.checks.notices import notices
from kdx.runs.ensemble_config import each_teacher, ensemble, together
from kdx.runs.fill import weights_file
from kdx.runs.leader import leader_first
from kdx.runs.memo import agrees, memoised
from kdx.runs.optimize import optimized
from kdx.runs.prepare import network_name
from kdx.runs.results import Result, finished
from kdx.runs.reuse.record import Known, parts
from kdx.tasks.classes import Classes

DEVIATION = 0.002  # of a metric between machines: batch sizes and kernels round differently


@dataclass(frozen=True)
class Teacher:
    """A teacher that passed its gate.

    Attributes:
        network: The network that methods call.
        told: Its entries in the result, without those of the memo.
        members: Members of an ensemble, by name.
    """

    network: Frozen | Memo | Ensemble
    told: dict[str, Any]
    members: Mapping[str, "Teacher"] = field(default_factory=dict)
    _predicted: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def facts(self) -> dict[str, Any]:
        """Its entries in the result, with the present state of the memo."""
        if self.members:
            return {**self.told, "members": {name: member.facts for name, member in self.members.items()}}
        if not isinstance(self.network, Memo):
            return self.told
        memo = self.network
        asked = memo.misses / max(1, memo.misses + memo.hits)
        return {**self.told, "memo": {**self.told["memo"], "share_computed": round(asked, 4)}}

    def predictions(self, loader: Iterable[Batch], device: torch.device, task: Task) -> dict[str, Tensor]:
        """Predictions on the test set, computed once."""
        if not self._predicted:
            self._predicted.update(predictions({"teacher": self.network}, loader, device, task))
        return self._predicted


Weights = Mapping[str, Path]  # by member name for an ensemble, under "" for a single teacher


def find_weights(config: RunConfig, train: Callable[[RunConfig], Result]) -> Weights:
    """Find the weights of each teacher, and train the teachers that have none.

    Args:
        config: Prepared config of the student's run.
        train: Runs the config of a teacher's own training.
    """
    return {name: _find(own, train) for name, own in each_teacher(config).items()}


def _find(config: RunConfig, train: Callable[[RunConfig], Result]) -> Path:
    teacher = config.teacher
    assert teacher is not None
    if teacher.checkpoint is None:
        return leader_first(lambda: _as_built(config))
    if teacher.checkpoint != "auto":
        return weights_file(teacher.checkpoint, "teacher.checkpoint")
    assert teacher.training is not None
    # with fresh=true, it is trained again if its data or code changed
    return train(replace(teacher.training, fresh=config.fresh, reuse=config.reuse)).student


def _as_built(config: RunConfig) -> Path:
    """Cache of pretrained weights, so that later runs need no download."""
    teacher, name = config.teacher, as_file_name(network_name(config, "teacher"))
    assert teacher is not None
    seed = derive(teacher.seed, "teacher")  # differs from the initial weights of a student of this seed
    key = fingerprint([teacher.net, seed, *filter(None, [parts(teacher.net)])])  # with its files and modules
    path = Path(config.paths.teachers) / f"{name}-as-built-{key}.safetensors"
    if not path.exists():
        save_weights(path, build_network(teacher.net, seed, partial(inputs_of, config)), {})
    return path


def load_teacher(
    config: RunConfig, weights: Weights, loaders: Loaders, device: torch.device, known: Known | None = None
) -> Teacher:
    """Build the teacher, measure it on the test set and compare it with `teacher.expected`.

    Each member of an ensemble has its own gate; the facts list the members under "members".

    Args:
        config, weights, loaders, device: Of the run.
        known: Fingerprints of its data sets that were computed already.

    Raises:
        UserError: The weights belong to another network, a teacher misses its expected accuracy, or its optimised
            form deviates too much from the exact one.
    """
    if "" in weights:
        return _load(config, weights[""], loaders, device, known)
    members = {name: _load(own, weights[name], loaders, device, known) for name, own in each_teacher(config).items()}
    assert config.teacher is not None
    nets, task = {name: member.network for name, member in members.items()}, loaders.spec.task
    network = ensemble(config.teacher, nets, task).to(device)
    measured = TaskMetrics(
        loaders=loaders.evals, device=device, task=task, split="test", model="teacher", every=None
    ).measure(network)
    told = {
        "net": network_name(config, "teacher"),
        "sha256": together([member.told["sha256"] for member in members.values()]),
        "weights": None,
        "trained_by": None,
        **{f"test/{name}": value for name, value in measured.items()},
    }
    return Teacher(network, told, members)


def _seen_by(classes: Sequence[int] | None, loaders: Loaders) -> Iterable[Batch]:
    """The test set with the labels of a specialist of `classes`; None leaves the labels as they are."""
    for batch in loaders.evals["test"]:
        if classes is not None:
            batch = batch.with_targets(labels=special(batch.labels, classes, loaders.spec.num_classes))
        yield batch


def _deviation(config: RunConfig, weights: Path, primary: Metric, reached: float) -> str | None:
    """A sentence if a teacher from a run measures otherwise than its result says, on the test set of that run."""
    result = None if config.teacher is None or config.teacher.optimize != "exact" else finished(weights.parent)
    if (
        result is None
        or result.student != weights
        or result.data["choices"].get("dataset") != config.choices["dataset"]
    ):
        return None
    stated = result.metric(f"test/{primary.name}")
    if stated is None or abs(reached - stated) <= DEVIATION * max(1.0, abs(stated)):
        return None
    return (
        f"the teacher {weights} reaches a test {primary.label} of {reached:.4f} here, and {stated:.4f} in its result; "
        "other test data, another normalisation or another machine can be the reason"
    )


def _load(config: RunConfig, weights: Path, loaders: Loaders, device: torch.device, known: Known | None) -> Teacher:
    settings = config.teacher
    assert settings is not None
    classes = settings.special_classes
    # a specialist has an output for each of its classes and one for all others
    task = loaders.spec.task if classes is None else Classes(len(classes) + 1)
    network, optimisation = optimized(config, build_teacher(config, weights).to(device), loaders, device)
    test = {"test": _seen_by(classes, loaders)}
    measured = TaskMetrics(loaders=test, device=device, task=task, split="test", model="teacher", every=None).measure(
        network
    )
    expected, tolerance, primary = settings.expected, settings.tolerance, task.primary
    reached = measured[primary.name]
    # negated, so that NaN fails the gate
    if expected is not None and not primary.sign * (reached - expected) >= -tolerance:
        raise UserError(
            f"the teacher {weights} reaches a test {primary.label} of {reached:.4f}, but teacher.expected is "
            f"{expected} (tolerance {tolerance}); give another teacher.checkpoint, train it longer, or set "
            "teacher.expected=null to skip this check"
        )
    if (told := _deviation(config, weights, primary, reached)) is not None:
        notices([told])
    facts = {
        "net": network_name(config, "teacher"),
        "sha256": sha256(weights),
        "weights": str(weights),
        "trained_by": None if settings.training is None else weights.parent.name,
        **optimisation,
        **{f"test/{name}": value for name, value in measured.items()},
    }
    if not settings.memo:
        return Teacher(network, facts)
    memo = memoised(config, network, facts["sha256"], loaders, device, known)
    same = settings.memo_dtype == "fp32" and agrees(network, loaders, device)
    facts["memo"] = {"table": memo.table.folder.name, "dtype": settings.memo_dtype, "bits_as_without": same}
    return Teacher(memo, facts)
