"""Lines about settings that are valid, but do something else than they seem to; printed before a run trains."""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdx.config.schema import RunConfig
from kdx.config.validate import locate
from kdx.core.distributed import is_leader
from kdx.core.schedule import Progress, Schedule
from kdx.data.loaders import Loaders
from kdx.engine.optim.ema import averaging
from kdx.engine.optim.lr import LearningRate
from kdx.runs.build import Light, make
from kdx.runs.folder import CONFIG, is_done

SCHEDULED = ("schedule", "method", "update")  # parts of a config that hold schedules


def remarks(config: RunConfig, light: Light, loaders: Loaders) -> Iterator[str]:
    """The lines for a run, whose length in epochs is known once its data is loaded."""
    clock = light.settings.clock(loaders.train)
    epochs = clock.schedule_epochs
    for key in SCHEDULED:
        for path, schedule in _schedules(getattr(config, key), key):
            for line in schedule.unreached(epochs):
                yield f"{path}: the run has {epochs:g} schedule epochs, and {line}"
    if isinstance(light.lr_schedule, LearningRate) and light.lr_schedule(Progress(0, clock.steps, epochs)) == 0:
        yield "schedule: the first step has a learning rate of 0; schedule.warmup_start=0.1 starts at a tenth"
    average = averaging(light.settings.ema)
    if average is not None:
        yield from average.remarks(clock.steps)
    dataset = config.dataset
    if dataset["fraction"] < 1 and dataset["val_fraction"] and light.dataset.fraction_order == "rest":
        yield (
            f"dataset.fraction={dataset['fraction']:g} is a share of the training set without its validation split, so "
            "it selects other examples than with dataset.val_fraction=0; with dataset.fraction_order=source they are "
            "nearly the same"
        )


def abandoned(folder: Path) -> Iterator[str]:
    """A line for each unfinished run of version 0.1 that the run in this directory seems to repeat from the start.

    One more line names a finished one. The directories have the same name but for the identity, which differs between
    the versions.
    """
    if (folder / CONFIG).exists():
        return
    done: list[Path] = []
    for other in sorted(folder.parent.glob(f"{glob.escape(folder.name.rpartition('-')[0])}-*")):
        if not (other / CONFIG).is_file():
            continue
        if re.search("^role:", (other / CONFIG).read_text(errors="replace"), re.MULTILINE):
            continue
        if is_done(other):
            done.append(other)
            continue
        yield (
            f"{other} is an unfinished run of version 0.1, which this version does not resume: training starts from "
            "the beginning"
        )
    if done:
        more = f" and {len(done) - 1} more" if len(done) > 1 else ""
        yield f"{done[0]}{more} finished under version 0.1: the report shows such runs, and this version trains again"


def resumed(threads: Sequence[int], device: torch.device) -> Iterator[str]:
    """A line if a resumed run has another number of CPU threads than before.

    Args:
        threads: The numbers so far, the present one last.
        device: The run's device.
    """
    if len(threads) > 1 and device.type == "cpu" and is_leader():
        yield (
            f"resumed with {threads[-1]} CPU threads after a start with {threads[-2]}, so the last bits of the result "
            f"can differ; trainer.threads={threads[0]} keeps them"
        )


def _schedules(node: Any, path: str) -> Iterator[tuple[str, Schedule]]:
    """The schedules in a part of a config, with their keys."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from _schedules(item, f"{path}[{number}]")
    if not isinstance(node, dict):
        return
    target = locate(node["_target_"]) if "_target_" in node else None
    if isinstance(target, type) and issubclass(target, Schedule) and not issubclass(target, nn.Module):
        yield path, make(node)
        return
    for key, value in node.items():
        yield from _schedules(value, f"{path}.{key}")
