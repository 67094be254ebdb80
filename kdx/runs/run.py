"""Runs one training, from its prepared config to its result on disk.

One file, to be read from top to bottom: claim the folder, build the parts, train, export, record a failure.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from kdx.config.schema import RunConfig
from kdx.core.distributed import fails_first, init_process_group, is_leader, world_size
from kdx.core.errors import StoppedError
from kdx.core.notice import say
from kdx.data.loaders import Loaders
from kdx.engine.record.log import View
from kdx.engine.record.loggers import started_by_agent
from kdx.engine.trainer import Trainer
from kdx.models.sync_norms import sync_batch_norms
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.sharded import shard
from kdx.runs import signals
from kdx.runs.build import (
    Light,
    build_loaders,
    build_method,
    start_student,
)
from kdx.runs.checks.given_weights import check_given_weights
from kdx.runs.checks.last_batch import check_last_batch
from kdx.runs.checks.notices import notices
from kdx.runs.checks.overlap import overlaps
from kdx.runs.checks.remarks import abandoned, remarks
from kdx.runs.export import export_run, folder_of, name
from kdx.runs.fill import weights_file
from kdx.runs.folder import (
    CONFIG,
    ERROR,
)
from kdx.runs.fused import FusedRuns
from kdx.runs.leader import leader_first, run_on_leader
from kdx.runs.lock import PAUSE, LockedError, locked
from kdx.runs.prepare import network_name
from kdx.runs.results import Result, finished, write_yaml
from kdx.runs.reuse.record import Facts, begin, renewed, reused, sources, write
from kdx.runs.teacher import find_weights, load_teacher
from kdx.runs.training import build_trainer, checkpoints_of, set_up_torch, start_over

UNSAVED = " before the first checkpoint"  # text of an interrupt after which nothing of the run is kept
Steps = Generator[int, None, Result]
Views = Callable[[Sequence[Mapping[str, float | None]]], Sequence[View]]  # from the lines recorded so far


def no_views(_: object) -> Sequence[View]:
    return ()


def run(config: RunConfig, views: Views = no_views, light: Light | None = None) -> Result:
    """Run a prepared config, or resume it, or return its finished result.

    The state of the run's directory, named by the run's identity, decides which of the three. So any command and any
    sweep can be repeated until it is done.

    Args:
        config: From `prepare`.
        views: Makes further views of the run's record.
        light: The parts that `prepare_with_parts` built; None builds them.

    Raises:
        UserError: Data, weights, device or directory do not match the config.
    """
    steps = in_steps(config, FusedRuns(), views, light)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def in_steps(config: RunConfig, fused: FusedRuns, views: Views = no_views, light: Light | None = None) -> Steps:
    """`run` as a generator: it pauses before the first step and after each, and yields the number of steps taken.

    Args:
        config: From `prepare`.
        fused: The runs that train in turn with this one.
        views, light: As in `run`.
    """
    init_process_group()
    folder = folder_of(config)
    if not config.fresh and (result := run_on_leader(lambda: reused(config.plain(), folder))):
        return result
    run_on_leader(lambda: check_given_weights(config))
    with contextlib.ExitStack() as claim:
        run_on_leader(lambda: claim.enter_context(locked(folder)))
        # another process may have finished the run between the check and the lock
        if not config.fresh and (result := run_on_leader(lambda: reused(config.plain(), folder))):
            return result
        plain = config.plain()
        facts = run_on_leader(lambda: begin(plain, folder, sources(plain, fused.fingerprints)))
        # a new attempt starts: the run counts as running, not as failed
        run_on_leader(lambda: (folder / ERROR).unlink(missing_ok=True))
        try:
            return (yield from _train(config, folder, fused, views, light or fused.light(config), facts))
        except StoppedError:
            raise
        except KeyboardInterrupt as error:
            stopped = error.args or isinstance(error, signals.SignalledError)
            if not stopped:  # else the interrupt stopped the teacher's run, which has set it
                error.args = ("" if checkpoints_of(config, folder).last.exists() else UNSAVED,)
            raise
        except Exception:
            if fails_first():
                _note_failure(folder)
            raise


def _train(config: RunConfig, folder: Path, fused: FusedRuns, views: Views, light: Light, facts: Facts) -> Steps:
    # first, so that missing data is reported before a teacher trains
    loaders = leader_first(lambda: fused.loaders(lambda: build_loaders(config, light), light.device))
    run_on_leader(lambda: _examine(config, folder, light, loaders))
    check_last_batch(config, loaders.train, loaders.spec.inputs, light.settings.clock(loaders.train).steps)
    weights = None if config.teacher is None else fused.weights(lambda: find_weights(config, train_teacher))
    run_on_leader(lambda: _begin(config, folder, facts))
    set_up_torch(light)  # after the teacher's own training, which has its own settings
    teacher = None
    if weights is not None:
        teacher = fused.teacher(lambda: load_teacher(config, weights, loaders, light.device, fused.fingerprints))
    checkpoint = config.student.checkpoint
    student = start_student(config, None if checkpoint is None else weights_file(checkpoint, "student.checkpoint"))
    method = build_method(config, loaders, student, None if teacher is None else teacher.network.cpu())
    method.to(light.device)
    if light.settings.channels_last:
        method.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stub lacks it
    if world_size() > 1:
        sync_batch_norms(method, light.device)
    if config.teacher is not None and config.teacher.shard:
        assert teacher is not None and isinstance(teacher.network, Frozen)
        shard(teacher.network.net, light.device)
    trainer = build_trainer(
        config, folder, light, loaders, method, None if teacher is None else teacher.facts["sha256"]
    )
    for view in views(trainer.log.lines()) if is_leader() else ():
        trainer.log.add_view(view)
    summary = None
    try:
        yield trainer.clock.step
        trainer.together = max(trainer.together, fused.size)
        with signals.training():
            for _ in trainer.steps():
                if (number := _signal(trainer)) is not None:
                    trainer.save()
                    raise signals.SignalledError(number, trainer.clock.step)
                yield trainer.clock.step
        result = export_run(config, folder, light, loaders, trainer, teacher)
        summary = {**trainer.selection.last, "folder": str(folder)}
        return result
    except GeneratorExit:  # a signal stopped a run that is fused with this one
        if signals.caught() is not None:
            trainer.save()
        raise
    finally:
        trainer.bar.stop()
        trainer.log.close(summary)


def _signal(trainer: Trainer) -> int | None:
    """The signal that asks this run to end. Several processes follow the leader, at the steps of lines."""
    if world_size() == 1:
        return signals.caught()
    return run_on_leader(signals.caught) if trainer.clock.step % trainer.log_steps == 0 else None


def _examine(config: RunConfig, folder: Path, light: Light, loaders: Loaders) -> None:
    notices(abandoned(folder))
    notices(remarks(config, light, loaders))
    notices(overlaps(config, light.transfer, loaders.splits))


def _begin(config: RunConfig, folder: Path, facts: Facts) -> None:
    if config.fresh:
        start_over(config, folder)
    write_yaml(folder / CONFIG, config.plain())
    write(folder, facts)


def train_teacher(config: RunConfig) -> Result:
    """Train a teacher, or return the finished one; with `fresh`, one whose data or code changed is trained again."""
    renew, config = config.fresh, replace(config, fresh=False)
    config = replace(config, paths=replace(config.paths, runs=config.paths.teachers))
    if started_by_agent():  # W&B's agent expects one run, the student's
        config = replace(config, logger={"_target_": "kdx.engine.record.loggers.Jsonl"})
    folder = folder_of(config)
    if is_leader() and finished(folder) is None:
        duration = {unit: n for unit, n in config.trainer["duration"].items() if n is not None and unit[0] != "_"}
        length = " ".join(f"{n} {unit}" for unit, n in duration.items())
        say(
            f"training the teacher first: {network_name(config, 'student')} on {config.dataset['name']}, "
            f"{length} ({folder}); teacher.checkpoint=PATH uses a trained one"
        )
    return run_or_wait(config, renew=renew)


def run_or_wait(config: RunConfig, views: Views = no_views, light: Light | None = None, renew: bool = False) -> Result:
    """Like `run`, but wait if another process trains the run, and take over if that process dies.

    Args:
        config, views, light: As in `run`.
        renew: Whether to train a finished run again if its data or code changed.
    """
    told = False
    while True:
        stale = run_on_leader(lambda: renewed(config.plain(), folder_of(config))) if renew else None
        if stale is not None and not told and is_leader():
            say(f"training {name(config)} again, since its data or code changed: {stale}")
        try:
            return run(replace(config, fresh=config.fresh or stale is not None), views, light)
        except LockedError:
            if not told and is_leader():
                say(f"{name(config)} is being trained by another process; waiting for it")
            told = True
            time.sleep(PAUSE)


def _note_failure(folder: Path) -> None:
    # a full or read-only disk must not hide the error that the caller raises
    with contextlib.suppress(OSError):
        (folder / ERROR).write_text(traceback.format_exc())
