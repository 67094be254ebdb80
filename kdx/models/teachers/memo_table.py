"""An on-disk table that any number of processes fill and read at the same time."""

import errno
import os
import weakref
from pathlib import Path
from typing import Literal

import numpy as np

from kdx.core.errors import UserError

SHARD_BYTES = 2**30
MARKS = "marks.bin"
Kind = Literal["fp16", "fp32"]


class MemoTable:
    """A table of rows, each written once and then read.

    A row counts as written if its mark equals the checksum of its bytes. The mark is written after the row, so a
    process killed in between leaves an unwritten row. If a power loss lets rows and marks reach the disk in another
    order, the checksum detects it. Two processes that write the same row write the same bytes. Files are sparse:
    unwritten rows take no disk space.

    Args:
        folder: Folder of `values-*.bin` and `marks.bin`; created if missing.
        rows: Number of rows.
        width: Numbers in a row.
        kind: Data type of the stored numbers.
    """

    def __init__(self, folder: Path, rows: int, width: int, kind: Kind):
        self.folder, self.rows, self.width = folder, rows, width
        self.dtype = np.dtype(np.float16 if kind == "fp16" else np.float32)
        # rounded up to 32-bit words, which the checksum sums
        self._row_bytes = -(-width * self.dtype.itemsize // 4) * 4
        self._shard_rows = max(1, SHARD_BYTES // self._row_bytes)
        # odd, so that each bit of a word matters; distinct, so that the order of words matters
        places = np.arange(1, self._row_bytes // 4 + 1, dtype=np.uint64)
        self._factors = (places * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
        folder.mkdir(parents=True, exist_ok=True)
        self._shards: dict[int, tuple[int, np.ndarray]] = {}
        self._files: list[int] = []
        # closes the files when the table is dropped: one process may train hundreds of runs
        self._finalizer = weakref.finalize(self, _close, self._files)
        self._marks_file, self._marks = self._open(MARKS, rows * 4, np.dtype(np.uint32), (rows,))

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read rows, int64 [B]: values [B, width], and a mask [B] of the written ones; other values are garbage."""
        marks = self._marks[rows]
        words = np.zeros((len(rows), self._row_bytes // 4), np.uint32)
        shards = rows // self._shard_rows
        known = marks != 0
        for shard in np.unique(shards[known]):
            here = known & (shards == shard)
            words[here] = self._shard(int(shard))[1][rows[here] % self._shard_rows]
        return words.view(self.dtype)[:, : self.width], known & (self._checksums(words) == marks)

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write values [B, width] to rows, int64 [B].

        Raises:
            UserError: The disk is full.
        """
        padded = np.zeros((len(rows), self._row_bytes // self.dtype.itemsize), self.dtype)
        padded[:, : self.width] = values
        words = padded.view(np.uint32)
        marks = self._checksums(words)
        try:
            # pwrite, not the memory map: on a full disk a write to the map kills the process without an error
            for row, record in zip(rows.tolist(), words, strict=True):
                shard, place = divmod(row, self._shard_rows)
                os.pwrite(self._shard(shard)[0], record.tobytes(), place * self._row_bytes)
            for row, mark in zip(rows.tolist(), marks, strict=True):
                os.pwrite(self._marks_file, mark.tobytes(), row * 4)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> Exception:
        """The error for a user if the disk is full; else the same error."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return error
        return UserError(
            f"the disk is full, so the teacher's memo {self.folder} cannot grow; free some space, set paths.memos "
            "to another disk, or set teacher.memo=false"
        )

    def written(self) -> int:
        """Number of rows with a mark."""
        return int(np.count_nonzero(self._marks))

    def close(self) -> None:
        """Close the files; this also happens when the table is garbage-collected."""
        self._finalizer()
        self._shards, self._marks_file = {}, -1

    def _checksums(self, words: np.ndarray) -> np.ndarray:
        """Checksum of each row of words [B, W], uint32, never 0."""
        total = (words * self._factors).sum(1, dtype=np.uint64)
        return np.maximum((total ^ (total >> np.uint64(32))).astype(np.uint32), np.uint32(1))

    def _shard(self, shard: int) -> tuple[int, np.ndarray]:
        if shard not in self._shards:
            rows = min(self._shard_rows, self.rows - shard * self._shard_rows)
            shape = (rows, self._row_bytes // 4)
            name = f"values-{shard:05d}.bin"
            self._shards[shard] = self._open(name, rows * self._row_bytes, np.dtype(np.uint32), shape)
        return self._shards[shard]

    def _open(self, name: str, size: int, dtype: np.dtype, shape: tuple[int, ...]) -> tuple[int, np.ndarray]:
        path = self.folder / name
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._files.append(file)
        if os.fstat(file).st_size < size:
            os.ftruncate(file, size)
        if name == MARKS and os.fstat(file).st_blocks * 512 < size and in_memory(self.folder):
            # every mark is read, and reading a hole of a mapped file on a full tmpfs kills the process without an error
            try:
                os.posix_fallocate(file, 0, size)
            except OSError as error:
                raise self._full(error) from error
        return file, np.memmap(path, dtype=dtype, mode="r", shape=shape)


def in_memory(folder: Path) -> bool:
    """Whether a folder lies on a file system in memory, whose holes take room when they are read."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    places = {mount[1]: mount[2] for mount in mounts if folder.resolve().is_relative_to(mount[1])}
    return bool(places) and places[max(places, key=len)] in ("tmpfs", "ramfs")


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
