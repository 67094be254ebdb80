"""Refuses a run whose student is chosen, or trained, on examples that should be new to its teacher and are not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdx.config.compose import Config
from kdx.config.identity import left_out
from kdx.config.past import DamagedError, read_config
from kdx.config.schema import RunConfig
from kdx.config.trusted import refusals
from kdx.core.errors import UserError
from kdx.data.content import digests, is_known
from kdx.data.dataset import SELECTION, Splits
from kdx.data.sets import ExampleSet
from kdx.data.sources.unlabelled_sources import Noise
from kdx.data.transfer import Transfer
from kdx.runs.build import make
from kdx.runs.ensemble_config import each_teacher
from kdx.runs.folder import CONFIG

FEW = 0.01  # share up to which equal images are natural duplicates
MOST = 50_000  # images of files that are decoded for a comparison by content


def overlaps(config: RunConfig, transfer: Transfer, splits: Splits) -> Iterator[str]:
    """Check the examples that should be new; yields a line for each check that is impossible.

    Args:
        config: Prepared config of the run.
        transfer, splits: Its transfer set and examples.

    Raises:
        UserError: More than `FEW` of them were trained on.
    """
    new: dict[str, tuple[ExampleSet, str]] = {}
    if splits.val is not None:
        cut = " ".join(f"dataset.{key}={config.dataset[key]}" for key in ("val_fraction", "val_seed"))
        new["validation"] = (splits.val, f"train it with {cut}, or set dataset.val_fraction=0")
    if transfer.has_foreign and not isinstance(transfer.unlabelled, Noise):
        for name, data in (("validation", splits.val), ("test", splits.test)):
            if data is not None and not _too_many(data, splits.train):
                _refuse(_by_content(data, splits.train), name, "transfer.unlabelled", "choose other images")
    if transfer.held_out and transfer.part == "held_out":
        seen = f"transfer.held_out={transfer.held_out} transfer.held_out_seed={transfer.held_out_seed}"
        remedy = f"train it with transfer=heldout {seen} transfer.part=rest, or set transfer=train"
        new["transfer"] = (splits.train, remedy)
    if new:
        for own in each_teacher(config).values():
            training = None if own.teacher is None else own.teacher.training
            if training is not None and not _is_cut_alike(config, training):
                parts = {"dataset": training.dataset, "transfer": training.transfer}
                yield from _compare(config, parts, new, "the teacher's own training, by teacher.recipe")
        for key, checkpoint in _given(config):
            for past in _ancestors(checkpoint):
                try:
                    if wrong := refusals({part: past[part] for part in ("dataset", "transfer")}):
                        raise ValueError(wrong[0])
                    yield from _compare(config, past, new, f"{key}={checkpoint}")
                except (OSError, KeyError, TypeError, ValueError) as error:
                    why = (str(error).splitlines() or [type(error).__name__])[0]
                    yield f"{key}={checkpoint}: cannot compare the examples that trained it ({why[:120]})"


def _compare(config: RunConfig, past: Config, new: dict[str, tuple[ExampleSet, str]], what: str) -> Iterator[str]:
    transfer = make(past["transfer"])
    train = transfer.splits(make(past["dataset"])).train
    numbered = _facts(config.dataset) == _facts(past["dataset"]) and not train.foreign
    for name, (data, remedy) in new.items():
        if numbered and data.foreign and name == "validation":
            continue  # the source's own validation set, which no part of its training set meets
        if numbered and not data.foreign:
            known = np.isin(data.origin.numpy(), train.origin.numpy())
        elif data.shape != train.shape or data.dtype != train.dtype:
            continue  # other inputs
        elif _too_many(data, train):
            yield f"{what}: its {len(train)} training images are too many to compare with the {name} images by content"
            continue
        else:
            known = _by_content(data, train)
        _refuse(known, name, f"the training set of {what}", remedy)


def _is_cut_alike(config: RunConfig, training: RunConfig) -> bool:
    """Whether a teacher's own training leaves out the same examples; it does unless its recipe says otherwise."""
    mine, other = config.transfer, training.transfer
    same = all(config.dataset[key] == training.dataset[key] for key in ("val_fraction", "val_seed"))
    same &= all(mine[key] == other[key] for key in ("held_out", "held_out_seed"))
    return same and (not mine["held_out"] or mine["part"] != other["part"])


def _refuse(known: np.ndarray, name: str, where: str, remedy: str) -> None:
    if known.sum() > FEW * len(known):
        raise UserError(f"{known.sum()} of the {len(known)} {name} examples are in {where}; {remedy}")


def _by_content(data: ExampleSet, train: ExampleSet) -> np.ndarray:
    return is_known(digests(data), digests(train))


def _too_many(data: ExampleSet, train: ExampleSet) -> bool:
    return sum(len(part) for part in (data, train) if part.decodes) > MOST


def _given(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The key and the place of each checkpoint that the config names."""
    for name, own in each_teacher(config).items():
        checkpoint = None if own.teacher is None else own.teacher.checkpoint
        if checkpoint not in (None, "auto"):
            yield f"teacher.members.{name}.checkpoint" if name else "teacher.checkpoint", checkpoint
    if config.student.checkpoint is not None:
        yield "student.checkpoint", config.student.checkpoint


def _ancestors(checkpoint: str) -> Iterator[Config]:
    """Configs of the run beside a checkpoint, and of the runs whose weights it started from."""
    seen: set[Path] = set()
    following: str | None = checkpoint
    while following is not None:
        path = Path(following).expanduser().resolve()
        file = (path if path.is_dir() else path.parent) / CONFIG
        if file in seen or not file.is_file():
            return
        seen.add(file)
        try:
            past = read_config(file)
            following = past["student"]["checkpoint"]
        except (DamagedError, KeyError):
            return  # a file of that name that is not the config of a run
        yield past


def _facts(dataset: Config) -> dict[str, Any]:
    """The settings that determine the positions of a data set's examples: equal settings give equal positions."""
    own = {key: value for key, value in dataset.items() if key not in SELECTION}
    return {key: value for key, value in own.items() if key == "root" or not left_out(f"dataset.{key}")}
