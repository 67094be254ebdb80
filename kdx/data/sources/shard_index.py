"""Cached index of the samples in a tar of the WebDataset format."""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdx.core.files import atomic_write
from kdx.data.sets import DataError
from kdx.data.sources.walk import SUFFIXES, Skipped, is_hidden

FORMAT = 1  # version of the index files
BLOCK = 512  # block size of a tar, in bytes
META = re.compile(r"__[^/]*__(/|$)")  # names that the format reserves for metadata


class Stamp(NamedTuple):
    """Identity of a file: its size in bytes and its modification time in ns."""

    size: int
    mtime: int


class ShardIndex(NamedTuple):
    """The samples of a shard, in order.

    Attributes:
        path: The shard.
        stamp: Identity of the indexed file.
        places: Offset and length of each image in bytes, int64 [N, 2].
        labels: Classes, int64 [N].
    """

    path: str
    stamp: Stamp
    places: np.ndarray
    labels: np.ndarray


def stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns)


def load(path: Path, label: str, folder: Path) -> ShardIndex | None:
    """Load the cached index of a shard; None if there is none for the file's current state.

    Args:
        path: The shard.
        label: Extension of the part of a sample that holds its class.
        folder: Folder of the cached indexes.
    """
    now = stamp(path.stat())
    try:
        with np.load(_file(path, label, folder), allow_pickle=False) as arrays:
            if tuple(arrays["stamp"].tolist()) != now:
                return None
            return ShardIndex(str(path), now, arrays["places"], arrays["labels"])
    except Exception:  # missing or damaged, which a reader of zip files reports in many ways: it will be rebuilt
        return None


def build(path: Path, label: str, folder: Path) -> ShardIndex:
    """Read a shard and cache its index. Arguments as for `load`.

    Raises:
        DataError: The shard is damaged, or a sample does not have exactly one image and one label.
    """
    try:
        with open(path, "rb") as file:
            now = stamp(os.fstat(file.fileno()))
            samples = list(_samples(path, label, file))
    except tarfile.TarError as error:
        raise DataError(f"the shard {path} is not a complete, uncompressed tar: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read the shard {path}: {error.strerror}") from error
    if not samples:
        raise DataError(f"the shard {path} contains no sample")
    table = np.array(samples, np.int64)
    found = ShardIndex(str(path), now, table[:, :2].copy(), table[:, 2].copy())
    try:
        _save(found, _file(path, label, folder))
    except OSError as error:
        raise DataError(f"cannot write to dataset.index={folder}: {error.strerror}") from error
    return found


def _save(found: ShardIndex, target: Path) -> None:
    """Write an index atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as out:
        np.savez(out, stamp=np.array(found.stamp), places=found.places, labels=found.labels)


def _file(path: Path, label: str, folder: Path) -> Path:
    key = hashlib.sha256(f"{FORMAT}\n{label}\n{path.resolve()}".encode()).hexdigest()[:16]
    return folder / f"{path.stem}-{key}.npz"


def _samples(path: Path, label: str, file: Any) -> Iterator[tuple[int, int, int]]:
    """Offset and length of the image, and the class, of each sample.

    webdataset groups the parts into samples; it receives their offsets and lengths instead of their contents.
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
                        f"sample '{name}' of the shard {path} needs one image and one part '{label}' with its class; "
                        f"it has: {', '.join(parts)}"
                    )
                yield *parts[images[0]], _class(os.pread(file.fileno(), parts[label][1], parts[label][0]), name, path)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the shard {path} is not in the WebDataset format: {error.args[0]}") from error


def _parts(path: Path, tar: tarfile.TarFile, number: int) -> Iterator[dict[str, Any]]:
    hidden = 0
    while (member := tar.next()) is not None:
        tar.members.clear()  # frees memory: there are millions of members  # pyright: ignore[reportAttributeAccessIssue]
        if member.isreg() and not META.match(member.name):
            if any(is_hidden(part) for part in member.name.split("/") if part not in (".", "..")):
                hidden += 1
                continue
            yield {"fname": member.name, "data": (member.offset_data, member.size), "__url__": str(path)}
    # tarfile treats an invalid header as the end of the archive
    end = os.pread(number, BLOCK, tar.offset)
    if len(end) < BLOCK or any(end):
        raise DataError(f"the shard {path} is damaged or truncated at byte {tar.offset}")
    Skipped(hidden=hidden).report(str(path))


def _class(content: bytes, name: str, path: Path) -> int:
    text = content.strip()
    if not text.isdigit() or len(text) > 9:
        told = text[:20].decode(errors="replace")
        raise DataError(f"sample '{name}' of the shard {path}: the class must be an integer from 0, got '{told}'")
    return int(text)
