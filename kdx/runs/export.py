"""Writes the result of a run: the exported student, its predictions and `result.json`."""

import json
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdx.config.identity import identity
from kdx.config.schema import RunConfig
from kdx.core.distributed import is_leader, world_size
from kdx.core.files import as_file_name
from kdx.core.method import Evaluator
from kdx.core.seed import seeded
from kdx.core.task import Task
from kdx.core.tree import map_tree
from kdx.data.loaders import Loaders
from kdx.engine.trainer import Trainer
from kdx.evals.base import SplitEvaluator
from kdx.evals.predictions import predictions
from kdx.models.tap import plain
from kdx.models.weights import load_weights, save_weights
from kdx.runs.build import Light, start_student, untrained
from kdx.runs.checks.networks import random_inputs
from kdx.runs.checks.travel import check_export
from kdx.runs.checksums import write_checksums
from kdx.runs.drawn import draw_detections
from kdx.runs.folder import ERROR, RESULT, SELECTED_STUDENT, STUDENT
from kdx.runs.leader import run_on_leader
from kdx.runs.prepare import network_name
from kdx.runs.provenance import commit, machine, versions
from kdx.runs.results import Result, save_predictions, write_json
from kdx.runs.teacher import Teacher

LONGEST = 200  # characters of a name before its identity: file systems end at 255 bytes


def name(config: RunConfig) -> str:
    """Directory name of a run: data set, method, networks and seed for people, then its identity."""
    parts = [config.dataset["name"], config.choices["method"], network_name(config, "student")]
    if config.teacher is not None:
        parts.append(f"from-{network_name(config, 'teacher')}")
    readable = "-".join([*map(str, parts), f"seed{config.seed}"])
    return f"{as_file_name(readable)[:LONGEST]}-{identity(config)}"


def folder_of(config: RunConfig) -> Path:
    """The directory of a run."""
    return Path(config.paths.runs) / name(config)


def export_run(
    config: RunConfig, folder: Path, light: Light, loaders: Loaders, trainer: Trainer, teacher: Teacher | None
) -> Result:
    """Write the exported student, its predictions and the result of a completed run; `DONE` last.

    All processes compute predictions; the leader writes. A run whose evaluators read the validation split alone has
    none, as the candidates of a search: they would cost more than its own measurements.
    """
    student = trainer.deliverable
    run_on_leader(lambda: _save(config, folder, student, loaders, light))
    predicted: dict[str, Tensor] = {}
    if not _validated_alone(trainer.evaluators.values()):
        predicted |= predictions({"student": student.eval()}, loaders.evals["test"], light.device, loaders.spec.task)
        if teacher is not None:
            predicted |= teacher.predictions(loaders.evals["test"], light.device, loaders.spec.task)
    return run_on_leader(lambda: _write(config, folder, light, loaders, trainer, teacher, predicted))


def _validated_alone(evaluators: Collection[Evaluator]) -> bool:
    """Whether there are evaluators, and all read the validation split."""
    splits = [own.split if isinstance(own, SplitEvaluator) else None for own in evaluators]
    return bool(splits) and all(split == "val" for split in splits)


def _save(config: RunConfig, folder: Path, student: nn.Module, loaders: Loaders, light: Light) -> None:
    """Write the student's weights, and check that a fresh network that loads them gives the same outputs."""
    save_weights(folder / STUDENT, student, _about(config))
    role = replace(config.student, net=untrained(config.student.net))
    fresh = start_student(replace(config, student=role), None)
    if plain(fresh).state_dict().keys() != plain(student).state_dict().keys():
        return  # the method exports another network than the configured one, as SimKD does
    load_weights(fresh, folder / STUDENT)
    fresh.to(light.device)
    with seeded(0, "export"):
        batch = map_tree(lambda t: t.to(light.device), random_inputs(loaders.spec.inputs, 2))
    with _eager():
        check_export(student, fresh, batch, str(folder / STUDENT))


def _eager() -> AbstractContextManager[Any]:
    """Leave compiled code out, since another batch size would compile again; without importing the compiler."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _write(
    config: RunConfig,
    folder: Path,
    light: Light,
    loaders: Loaders,
    trainer: Trainer,
    teacher: Teacher | None,
    predicted: Mapping[str, Tensor],
) -> Result:
    student, task = trainer.deliverable, loaders.spec.task
    if predicted:
        save_predictions(folder, predicted)
        draw_detections(folder, task, loaders.splits.test, predicted)
    data = {
        "name": folder.name,
        "identity": identity(config),
        "choices": config.choices,
        "seed": config.seed,
        "data_seed": config.data_seed,
        "task": {
            "kind": task.kind,
            "primary": task.primary.name,
            "metrics": described(trainer.evaluators.values(), task),
        },
        "protocol": "last",
        "metrics": trainer.selection.state_dict(),
        "teacher": None if teacher is None else teacher.facts,
        "examples": {"training": loaders.spec.num_examples}
        | {split: loader.num_examples for split, loader in loaders.evals.items()},
        "steps": trainer.clock.steps,
        "epochs": trainer.clock.epochs,
        "parameters": sum(p.numel() for p in student.parameters()),
        "seconds": round(trainer.seconds, 3),
        "milliseconds_per_step": round(1000 * trainer.step_seconds / trainer.clock.steps, 4),
        "examples_per_second": round(trainer.examples / trainer.seconds, 1),
        "fused": trainer.together,
        "processes": world_size(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "code": commit(),
        "versions": versions(),
        "device": machine(light.device)
        # the run was resumed with another number of threads
        | ({"threads_before": trainer.threads[:-1]} if len(trainer.threads) > 1 else {}),
    }
    write_json(folder / RESULT, data)
    (folder / ERROR).unlink(missing_ok=True)
    # last: its presence means that all other files are complete
    write_checksums(folder)
    trainer.checkpoints.clear()
    return Result(folder, data)


def described(evaluators: Iterable[Evaluator], task: Task) -> list[dict[str, Any]]:
    """Display settings of a run's metrics as JSON values, without duplicates."""
    metrics = [*task.described, *(metric for evaluator in evaluators for metric in evaluator.described)]
    return list({metric.name: metric.record() for metric in metrics}.values())


def save_selected(config: RunConfig, folder: Path, student: nn.Module) -> None:
    """Export the student that is best on validation so far."""
    if is_leader():
        save_weights(folder / SELECTED_STUDENT, student, _about(config))


def _about(config: RunConfig) -> dict[str, str]:
    """Metadata of exported weights: one entry, since safetensors writes several in random order."""
    return {"kdx": json.dumps({"run": name(config), "net": config.student.net}, sort_keys=True)}
