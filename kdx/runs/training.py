"""The trainer of a run: built from its parts, resumed from its last checkpoint, or started over."""

from pathlib import Path

import torch

from kdx.config.identity import identity
from kdx.config.schema import RunConfig
from kdx.core.distributed import is_leader, rank
from kdx.core.method import Method
from kdx.core.seed import derive, seed_all
from kdx.data.loaders import Loaders
from kdx.engine.checkpoint import Checkpoints
from kdx.engine.optim.cuda_graph import CudaRecorder, Graphed
from kdx.engine.optim.ema import Ema, averaging
from kdx.engine.optim.memory import keep_freed_memory
from kdx.engine.record.bar import Bar
from kdx.engine.record.log import Log
from kdx.engine.record.wandb_view import ONLINE_ID
from kdx.engine.trainer import Trainer
from kdx.runs.build import Light, build_evaluators, make, stream_seed
from kdx.runs.checks.notices import notices
from kdx.runs.checks.remarks import resumed
from kdx.runs.export import save_selected
from kdx.runs.folder import (
    CHECKPOINTS,
    DETECTIONS,
    DONE,
    ERROR,
    PREDICTIONS,
    RECORD,
    RESULT,
    SELECTED_STUDENT,
    STUDENT,
)


def set_up_torch(light: Light) -> None:
    """Apply a run's settings of torch that hold for the whole process."""
    if light.device.type == "cpu":
        keep_freed_memory()
    if light.settings.threads is not None:
        torch.set_num_threads(light.settings.threads)
    # set only if it changes: setting it imports the compiler, which takes seconds
    if torch.are_deterministic_algorithms_enabled() != light.settings.deterministic:
        torch.use_deterministic_algorithms(light.settings.deterministic)


def build_trainer(
    config: RunConfig,
    folder: Path,
    light: Light,
    loaders: Loaders,
    method: Method,
    teacher: str | None = None,
) -> Trainer:
    """The trainer of a run, resumed from the last checkpoint in its directory if there is one.

    Args:
        config, folder, light, loaders, method: Of the run.
        teacher: Checksum of the teacher's weights.
    """
    settings = light.settings
    evaluators = build_evaluators(config.evals, loaders, light.device)
    task = loaders.spec.task
    average = averaging(settings.ema)
    ema = None if average is None else Ema(method.student, average)
    if settings.compile:
        method.student.compile()
    update = make(
        config.update,
        method=method,
        optimizer=light.optimizer,
        lr_schedule=light.lr_schedule,
        autocast=settings.autocast,
    )
    if settings.cuda_graph:
        update = Graphed(update, CudaRecorder(light.device))
    clock = settings.clock(loaders.train)
    checkpoints = checkpoints_of(config, folder, teacher)
    state = checkpoints.load()
    keeps, plain = light.logger.keeps_record and is_leader(), config.plain()
    log = Log(folder / RECORD if keeps else None, state["log"] if state else 0)
    view = light.logger.view(folder, identity(plain), folder.name, plain, log.lines()) if is_leader() else None
    if view is not None:
        log.add_view(view)
    trainer = Trainer(
        method=method,
        update=update,
        loader=loaders.train,
        evaluators=evaluators,
        clock=clock,
        log=log,
        checkpoints=checkpoints,
        bar=Bar(folder.name.rsplit("-", 1)[0], clock.examples, ("loss", task.primary.name)),
        task=task,
        device=light.device,
        ema=ema,
        log_steps=settings.log_steps,
        checkpoint_seconds=settings.checkpoint_seconds,
        on_selected=lambda student: save_selected(config, folder, student),
    )
    # each process has its own streams, so that examples in different processes get different draws
    seed_all(derive(stream_seed(config, "seed"), "run", *([rank()] if rank() else [])))
    if state is not None:
        trainer.load(state)
        notices(resumed(trainer.threads, light.device))
    return trainer


def checkpoints_of(config: RunConfig, folder: Path, teacher: str | None = None) -> Checkpoints:
    """The checkpoints of a run; `teacher` as in `build_trainer`."""
    return Checkpoints(folder / CHECKPOINTS, identity(config), teacher)


def start_over(config: RunConfig, folder: Path) -> None:
    """Remove what an earlier training left in a run's directory."""
    (folder / DONE).unlink(missing_ok=True)
    checkpoints_of(config, folder).clear()
    for stale in (RESULT, RECORD, STUDENT, SELECTED_STUDENT, PREDICTIONS, DETECTIONS, ONLINE_ID, ERROR):
        (folder / stale).unlink(missing_ok=True)
