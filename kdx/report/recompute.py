"""Recomputed predictions of a finished run that stored none, from its exported student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdx.config.schema import RunConfig
from kdx.core.errors import UserError, reason
from kdx.core.task import Task
from kdx.evals.predictions import predictions
from kdx.models.weight_files import split_name
from kdx.models.weights import sha256
from kdx.report.collect import Run
from kdx.runs.build import build_light, build_loaders, build_student, build_teacher
from kdx.runs.ensemble_config import each_teacher, ensemble
from kdx.runs.folder import PREDICTIONS, STUDENT
from kdx.runs.results import save_predictions
from kdx.runs.use.stored import as_data


def fill_predictions(runs: Sequence[Run]) -> list[str]:
    """Compute the missing predictions of runs; returns one line for each incomplete run."""
    lines = []
    for run in runs:
        if (run.result.folder / PREDICTIONS).exists():
            continue
        try:
            lines.append(recompute(run))
        except (UserError, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            lines.append(f"{run.result.folder.name}: no predictions: {reason(error)}")
    return [line for line in lines if line is not None]


def recompute(run: Run) -> str | None:
    """Write a run's predictions on the test set; needs its data, and its teacher's weights if it had a teacher.

    Returns:
        A sentence about what is missing from the file; None if it is complete.

    Raises:
        UserError: The data or the student's weights are missing, or the config names what must not be built.
    """
    folder = run.result.folder
    config = as_data(folder, run.config)
    light = build_light(config)
    task = light.transfer.task(light.dataset.task)
    models: dict[str, nn.Module] = {"student": build_student(config, run.result.student).eval()}
    missing = None
    if config.teacher is not None:
        teacher = _teacher(run, config, task)
        if teacher is None:
            missing = f"{folder.name}: the weights of its teacher are missing"
        else:
            models["teacher"] = teacher
    for net in models.values():
        net.to(light.device)
    loaders = build_loaders(config, light)
    save_predictions(folder, predictions(models, loaders.evals["test"], light.device, task))
    return missing


def _teacher(run: Run, config: RunConfig, task: Task) -> nn.Module | None:
    """The run's teacher, verified by its hash; None if its weights are missing."""
    facts, nets = run.result.data["teacher"], {}
    for name, own in each_teacher(config).items():
        weights = _weights(facts["members"][name] if name else facts, run.result.folder)
        if weights is None:
            return None
        nets[name] = build_teacher(own, weights)
    assert config.teacher is not None
    return (nets[""] if "" in nets else ensemble(config.teacher, nets, task)).eval()


def _weights(facts: dict[str, Any], folder: Path) -> Path | None:
    places = [Path(facts["weights"])]
    if facts["trained_by"] is not None:
        places.append(folder.parent.parent / "teachers" / facts["trained_by"] / STUDENT)
    return next((place for place in places if split_name(place)[0].exists() and sha256(place) == facts["sha256"]), None)
