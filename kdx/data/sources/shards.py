"""Images in tar files of the WebDataset format: how sets of millions are laid out for disks that dislike small files.

Its library, webdataset, streams: it shuffles what is in a buffer, and a run that was cut off would have to read its
epoch again up to there. Here a batch is a function of (data seed, epoch, step), so images are read one by one, by an
index of what lies where. The library's sister for that, wids, reads through a shard's headers whenever it opens one and
takes a shard that was cut off for a whole one. So the library says which shards and samples there are, and the index is
our own.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tarfile import TarError, TarInfo

import numpy as np
import torch
from torch import Tensor

from kdx.core.ranges import PositiveInt
from kdx.data.dataset import LabelledImages, missing
from kdx.data.sets import DataError, EncodedSet, ImageSet, Nearby
from kdx.data.sources.decode import decode_content
from kdx.data.sources.shard_index import BLOCK, Stamp, known, make, stamp

OPEN = 128  # shards that a process keeps open


@dataclass(frozen=True, kw_only=True)
class Shards(LabelledImages):
    """Samples of consecutive files with one name: an image (`0001.jpg`) and its class as a number (`0001.cls`).

    Attributes:
        root: Folder of all data sets.
        folder: The data set's folder in `root`.
        train: Shards in it of the training set: `train-{000000..000146}.tar`, which misses none, or `train-*.tar`,
            which takes those that are there.
        test: Shards of the test set.
        label: The part of a sample that holds its class, counted from 0.
        resize: Length that an image's short side is brought to before the input size is cut from its centre.
        in_memory: Decode every image once, at the start; for sets that fit.
        at_once: Shards that an epoch reads from at a time, in random order, which keeps reads together where the disk
            wants that; None to mix images of all. With few, shards have to hold all classes.
        index: Folder in which is kept what lies where in each shard.

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

    def load(self) -> tuple[ImageSet, ImageSet]:
        if find_spec("webdataset") is None:
            raise DataError("data sets in shards need an extra that is not installed: pip install 'kdx[shards]'")
        if self.in_memory and self.at_once is not None:
            raise DataError("with dataset.in_memory=true no shard is read in training; say dataset.at_once=null")
        base = Path(self.root).expanduser() / self.folder
        if not base.is_dir():
            raise missing(base, self.name, "put its shards there")
        train, test = _find(base, self.train, "train"), _find(base, self.test, "test")
        if both := sorted(set(train) & set(test)):
            raise DataError(f"the shard {both[0]} is in dataset.train and in dataset.test")
        train, test = self._set(train, self.at_once), self._set(test, None)
        return (train.in_memory(), test.in_memory()) if self.in_memory else (train, test)

    def _set(self, paths: Sequence[Path], at_once: int | None) -> EncodedSet:
        kept = Path(self.index)
        found = [known(path, self.label, kept) for path in paths]
        if new := found.count(None):
            print(f"kdx: indexing {new} of {len(paths)} shards of {self.name}, once ({kept})", file=sys.stderr)
        indexes = [f or make(p, self.label, kept) for f, p in zip(found, paths, strict=True)]
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
        shards: Paths, and the files that were there when they were indexed.
        shard: Which shard each image is in, int64 [N].
        places: Its offset and length, int64 [N, 2].
    """

    def __init__(self, shards: Sequence[tuple[str, Stamp]], shard: Tensor, places: Tensor):
        self.shards, self.shard, self.places = shards, shard, places

    def subset(self, indices: Tensor) -> "ShardImages":
        return ShardImages(self.shards, self.shard[indices], self.places[indices])

    def decode(self, index: int, channels: int) -> np.ndarray:
        path, as_it_was = self.shards[int(self.shard[index])]
        offset, length = self.places[index].tolist()
        try:
            file = _opened(path, as_it_was)
            # not seek and read: processes that share an open file share its position
            return decode_content(os.pread(file.number, length, offset), channels)
        except DataError:
            raise
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"cannot read an image of the shard {path}, {_name(path, offset)}: {error}") from error


class _Opened:
    """An open file, closed when nobody has it any more."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(OPEN)
def _opened(path: str, as_it_was: Stamp) -> _Opened:
    file = _Opened(path)
    if stamp(os.fstat(file.number)) != as_it_was:
        raise DataError(f"the shard {path} was changed after the run had begun; the same command resumes it")
    return file


def _name(path: str, offset: int) -> str:
    """What a tar calls the file whose content begins somewhere, for people; its header comes just before."""
    try:
        with open(path, "rb") as file:
            file.seek(offset - BLOCK)
            return TarInfo.frombuf(file.read(BLOCK), "utf-8", "replace").name
    except (OSError, TarError):
        return f"at byte {offset}"


def _find(base: Path, pattern: str, part: str) -> list[Path]:
    """The shards that a pattern names, in order."""
    from webdataset.shardlists import expand_urls

    if "*" in pattern or "?" in pattern:
        found = sorted(path for path in base.glob(pattern) if path.is_file())
        if not found:
            raise missing(base / pattern, f"shards of dataset.{part}", "put them there")
        return found
    try:
        found = [base / name for name in expand_urls(pattern)]
    except (AssertionError, ValueError) as error:
        raise DataError(f"dataset.{part}={pattern} is no pattern of shards: {error}") from None
    for path in found:
        if not path.is_file():
            raise missing(path, f"a shard of dataset.{part}", "put it there")
    if len(set(found)) < len(found):
        raise DataError(f"dataset.{part}={pattern} names a shard twice")
    return found
