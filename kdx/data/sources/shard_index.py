"""What lies where in a tar of the WebDataset format, found out once and kept."""

import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdx.core.files import atomic_write
from kdx.data.sets import DataError
from kdx.data.sources.folder import SUFFIXES

FORMAT = 1  # of the kept files
BLOCK = 512  # of a tar
META = re.compile(r"__[^/]*__(/|$)")  # names that the format sets aside for what is no sample


class Stamp(NamedTuple):
    """What a file is known by: its length in bytes, and when it was changed, in ns."""

    size: int
    mtime: int


class ShardIndex(NamedTuple):
    """The samples of a shard, in its order.

    Attributes:
        path: The shard.
        stamp: The file that was read.
        places: Offset and length of each image, int64 [N, 2].
        labels: int64 [N].
    """

    path: str
    stamp: Stamp
    places: np.ndarray
    labels: np.ndarray


def stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns)


def known(path: Path, label: str, kept: Path) -> ShardIndex | None:
    """The index of a shard that was made before; None where there is none of the file as it is now.

    Args:
        path: The shard.
        label: The part of a sample that holds its class.
        kept: Folder of indexes.
    """
    now = stamp(path.stat())
    try:
        with np.load(_file(path, label, kept), allow_pickle=False) as arrays:
            if tuple(arrays["stamp"].tolist()) != now:
                return None
            return ShardIndex(str(path), now, arrays["places"], arrays["labels"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # missing or damaged: it can be made again
        return None


def make(path: Path, label: str, kept: Path) -> ShardIndex:
    """Read through a shard and keep its index. Arguments as of `known`.

    Raises:
        DataError: The shard is damaged, or a sample has not one image and one label.
    """
    try:
        with open(path, "rb") as file:
            now = stamp(os.fstat(file.fileno()))
            samples = list(_samples(path, label, file))
    except tarfile.TarError as error:
        raise DataError(f"the shard {path} has to be a tar that is whole and not compressed: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read the shard {path}: {error.strerror}") from error
    if not samples:
        raise DataError(f"the shard {path} holds no sample")
    table = np.array(samples, np.int64)
    found = ShardIndex(str(path), now, table[:, :2].copy(), table[:, 2].copy())
    try:
        _keep(found, _file(path, label, kept))
    except OSError as error:
        raise DataError(f"cannot write to dataset.index={kept}: {error.strerror}") from error
    return found


def _keep(found: ShardIndex, target: Path) -> None:
    """Write an index whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as out:
        np.savez(out, stamp=np.array(found.stamp), places=found.places, labels=found.labels)


def _file(path: Path, label: str, kept: Path) -> Path:
    key = hashlib.sha256(f"{FORMAT}\n{label}\n{path.resolve()}".encode()).hexdigest()[:16]
    return kept / f"{path.stem}-{key}.npz"


def _samples(path: Path, label: str, file: Any) -> Iterator[tuple[int, int, int]]:
    """Offset and length of the image, and the class, of each sample.

    Which parts make a sample is the library's business; it is given where they lie in place of what they hold.
    """
    from webdataset.tariterators import group_by_keys

    with tarfile.open(fileobj=file, mode="r:") as tar:
        try:
            for sample in group_by_keys(_parts(path, tar, file.fileno())):
                name = sample["__key__"]
                parts = {part: place for part, place in sample.items() if not META.match(part)}
                images = [part for part in parts if f".{part}" in SUFFIXES]
                if len(images) != 1 or label not in parts:
                    raise DataError(
                        f"the sample '{name}' of the shard {path} needs one image and a part '{label}' with its class; "
                        f"it has: {', '.join(parts)}"
                    )
                yield *parts[images[0]], _class(os.pread(file.fileno(), parts[label][1], parts[label][0]), name, path)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the shard {path} is no data set in the WebDataset format: {error.args[0]}") from error


def _parts(path: Path, tar: tarfile.TarFile, number: int) -> Iterator[dict[str, Any]]:
    while (member := tar.next()) is not None:
        tar.members.clear()  # of which there are millions  # pyright: ignore[reportAttributeAccessIssue]
        if member.isreg() and not META.match(member.name):
            yield {"fname": member.name, "data": (member.offset_data, member.size), "__url__": str(path)}
    # tarfile takes what is no header for the end
    end = os.pread(number, BLOCK, tar.offset)
    if len(end) < BLOCK or any(end):
        raise DataError(f"the shard {path} is damaged, or was cut off, at byte {tar.offset}")


def _class(content: bytes, name: str, path: Path) -> int:
    text = content.strip()
    if not text.isdigit() or len(text) > 9:
        told = text[:20].decode(errors="replace")
        raise DataError(f"the class of sample '{name}' of the shard {path} is no number from 0 on: '{told}'")
    return int(text)
