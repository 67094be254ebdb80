"""The folder of a teacher's memo whose stored outputs are of the data and code as they are now.

Each folder records what its outputs were computed from: the fingerprints of data files and of the user's modules
(`sources.json`, as a run's), and the digest of each training image (`content.bin`, uint64 by its position in the
source, 0 where it is unknown). A folder of other data or code stays as it is, and a numbered one beside it is used.
"""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdx.core.files import atomic_write
from kdx.core.notice import notice
from kdx.data.content import digests
from kdx.data.sets import ExampleSet
from kdx.models.teachers.memo_table import MARKS
from kdx.runs.reuse.record import Facts, Known, change, recorded, sources, write

CONTENT = "content.bin"
SAMPLE = 256  # images in files that are compared at each start


def memo_folder(config: Mapping[str, Any], named: Path, train: ExampleSet, known: Known | None = None) -> Path:
    """The folder that a run may use: `named`, or that with a number.

    Args:
        config: Config of the student's run, prepared.
        named: Folder by the settings that the teacher's outputs depend on.
        train: The training images: those in memory are compared one by one, `SAMPLE` of those in files.
        known: As in `sources`.
    """
    parts = {key: config[key] for key in ("dataset", "transfer", "augmentation")}
    now = sources({**parts, "teacher": {"net": config["teacher"]["net"]}}, known)
    positions = torch.arange(len(train))
    if train.decodes and len(train) > SAMPLE:  # other ones at each start, from a stream of its own
        positions = torch.from_numpy(np.random.default_rng().choice(len(train), SAMPLE, replace=False))
    own, rows = digests(train.subset(positions)), train.origin[positions].numpy()
    for number in count():
        folder = named if number == 0 else named.with_name(f"{named.name}-{number}")
        before, stored = recorded(folder), _stored(folder, train.pool)
        if stored is None:
            continue  # of a version that kept no digests
        if (told := _difference(before, now, stored[rows], own)) is not None:
            notice(f"{folder} holds outputs for other data or code ({told}); it is left as it is")
            continue
        _complete(folder, before, now, stored, rows, own)
        return folder
    raise AssertionError("the numbers never end")


def _stored(folder: Path, pool: int) -> np.ndarray | None:
    """The digests of a folder, uint64 [pool], zeros in a new folder; None if its outputs have none."""
    file, digest = folder / CONTENT, np.zeros(pool, np.uint64)
    if file.exists():
        kept = np.fromfile(file, np.uint64)
        digest[: len(kept)] = kept[:pool]
        return digest
    return None if (folder / MARKS).exists() else digest


def _difference(before: Facts | None, now: Facts, stored: np.ndarray, own: np.ndarray) -> str | None:
    """The first difference between what a folder's outputs are of and what a run has, in words; None without one."""
    if before is not None and (told := change(before, now)) is not None:
        return told
    changed = int(((stored != 0) & (stored != own)).sum())
    return f"{changed} of {len(own)} training images changed" if changed else None


def _complete(
    folder: Path, before: Facts | None, now: Facts, stored: np.ndarray, rows: np.ndarray, own: np.ndarray
) -> None:
    """Write what the record of a folder lacks."""
    present = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    if before is None and (now["files"] or now["modules"]):
        if present:
            notice(f"{folder} has no record of its data and code, so they were not compared")
        write(folder, now)
    if (stored[rows] == 0).any():
        stored[rows] = own
        with atomic_write(folder / CONTENT) as target:
            target.write(stored.tobytes())
