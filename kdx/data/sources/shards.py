"""Images in tar files of the WebDataset format, for data sets of millions of images on disks that are slow with small
files.

The library webdataset streams: it shuffles within a buffer, and an interrupted run would have to read its epoch again
up to the interruption. Here a batch is a function of (data seed, epoch, step), so single images are read by random
access, through an index of their offsets. The related library wids reads all headers of a shard whenever it opens one,
and does not detect a truncated shard. So webdataset expands the shard names and groups the samples, and this package
has its own index.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tarfile import TarError, TarInfo

import numpy as np
import torch
from torch import Tensor

from kdx.core.notice import say
from kdx.core.ranges import PositiveInt
from kdx.data.dataset import LabelledImages, missing
from kdx.data.encoded import EncodedSet
from kdx.data.sets import DataError, ImageSet, Nearby
from kdx.data.sources.decode import decode_content, reason
from kdx.data.sources.shard_index import BLOCK, Stamp, build, load, stamp
from kdx.data.sources.walk import files_below

OPEN = 128  # number of shards that a process keeps open


@dataclass(frozen=True, kw_only=True)
class Shards(LabelledImages):
    """Samples stored as consecutive files with one stem: an image (`0001.jpg`) and its class number (`0001.cls`).

    Attributes:
        root: Folder of all data sets.
        folder: The data set's folder in `root`.
        train: Shards of the training set: `train-{000000..000146}.tar`, which must all exist, or `train-*.tar`, which
            takes the existing ones.
        test: Shards of the test set.
        label: Extension of the file with the class, counted from 0.
        resize: Length of the short side after resizing, before the central crop to the input size.
        in_memory: Decode every image once at the start; for sets that fit into memory.
        at_once: Number of shards that an epoch reads from at a time, in random order, so that reads stay local on slow
            disks; None to shuffle over all shards. If small, each shard should contain all classes.
        index: Folder of the cached shard indexes.

    References:
        Aizman, Maltby, Breuel, "High Performance I/O For Large Scale Deep Learning", 2019.
        https://arxiv.org/abs/2001.01858
    """

    root: str
    folder: str
    train: str
    test: str
    label: str
    resize: PositiveInt
    in_memory: bool
    at_once: PositiveInt | None
    index: str

    def files(self) -> Mapping[str, Sequence[str]]:
        return files_below(str(Path(self.root).expanduser() / self.folder))

    def load(self) -> tuple[ImageSet, ImageSet]:
        if find_spec("webdataset") is None:
            raise DataError("data sets in shards need webdataset, which is not installed: pip install 'kdx[shards]'")
        if self.in_memory and self.at_once is not None:
            raise DataError("dataset.at_once has no effect with dataset.in_memory=true; set dataset.at_once=null")
        base = Path(self.root).expanduser() / self.folder
        if not base.is_dir():
            raise missing(base, self.name, "put its shards there")
        train, test = _find(base, self.train, "train"), _find(base, self.test, "test")
        if both := sorted(set(train) & set(test)):
            raise DataError(f"the shard {both[0]} is in both dataset.train and dataset.test")
        train, test = self._set(train, self.at_once), self._set(test, None)
        return (train.in_memory(), test.in_memory()) if self.in_memory else (train, test)

    def _set(self, paths: Sequence[Path], at_once: int | None) -> EncodedSet:
        kept = Path(self.index)
        found = [load(path, self.label, kept) for path in paths]
        if new := found.count(None):
            say(f"indexing {new} of {len(paths)} shards of {self.name}; cached in {kept}")
        indexes = [f or build(p, self.label, kept) for f, p in zip(found, paths, strict=True)]
        counts = torch.tensor([len(i.labels) for i in indexes])
        labels = torch.from_numpy(np.concatenate([i.labels for i in indexes]))
        places = torch.from_numpy(np.concatenate([i.places for i in indexes]))
        shard = torch.arange(len(indexes)).repeat_interleave(counts)
        images = ShardImages([(i.path, i.stamp) for i in indexes], shard, places)
        c, h, w = self.input_shape
        nearby = None if at_once is None else Nearby(shard, at_once)
        return EncodedSet(images, labels, (c, h, w), self.resize, nearby=nearby)


class ShardImages:
    """Images in shards.

    Args:
        shards: Path of each shard, and its identity when it was indexed.
        shard: Shard number of each image, int64 [N].
        places: Offset and length of each image in bytes, int64 [N, 2].
    """

    def __init__(self, shards: Sequence[tuple[str, Stamp]], shard: Tensor, places: Tensor):
        self.shards, self.shard, self.places = shards, shard, places

    def subset(self, indices: Tensor) -> "ShardImages":
        return ShardImages(self.shards, self.shard[indices], self.places[indices])

    def decode(self, index: int, channels: int) -> np.ndarray:
        path, expected = self.shards[int(self.shard[index])]
        offset, length = self.places[index].tolist()
        try:
            file = _open(path, expected)
            # pread, not seek and read: processes that share an open file share its position
            return decode_content(os.pread(file.number, length, offset), channels)
        except DataError:
            raise
        except Exception as error:  # decoders of damaged files can raise anything
            where = f"the shard {path}, {_name(path, offset)}"
            raise DataError(f"cannot read an image of {where}: {reason(error)}") from error


class _OpenFile:
    """An open file that closes when it is garbage-collected."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(OPEN)
def _open(path: str, expected: Stamp) -> _OpenFile:
    file = _OpenFile(path)
    if stamp(os.fstat(file.number)) != expected:
        raise DataError(f"the shard {path} changed after the run started; run the same command again to resume")
    return file


def _name(path: str, offset: int) -> str:
    """Name of the tar member whose content starts at an offset, for messages; its header precedes the content."""
    try:
        with open(path, "rb") as file:
            file.seek(offset - BLOCK)
            return TarInfo.frombuf(file.read(BLOCK), "utf-8", "replace").name
    except (OSError, TarError):
        return f"at byte {offset}"


def _find(base: Path, pattern: str, part: str) -> list[Path]:
    """The shards that match a pattern, in order."""
    from webdataset.shardlists import expand_urls

    if "*" in pattern or "?" in pattern:
        found = sorted(path for path in base.glob(pattern) if path.is_file())
        if not found:
            raise missing(base / pattern, f"shards of dataset.{part}", "put them there")
        return found
    try:
        found = [base / name for name in expand_urls(pattern)]
    except (AssertionError, ValueError) as error:
        raise DataError(f"dataset.{part}={pattern} is not a valid shard pattern: {error}") from None
    for path in found:
        if not path.is_file():
            raise missing(path, f"a shard of dataset.{part}", "put it there")
    if len(set(found)) < len(found):
        raise DataError(f"dataset.{part}={pattern} names a shard twice")
    return found
