"""A memo table filled by several processes, some of which are killed, against a function of the row."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kdx.core.errors import UserError
from kdx.models.teachers import memo_table
from kdx.models.teachers.memo_table import MemoTable

ROWS, WIDTH = 500, 7


def value(rows: np.ndarray) -> np.ndarray:
    return (np.arange(WIDTH) + 1.0) * (rows[:, None] % 251 - 100)


def check(table: MemoTable) -> int:
    """Check the contents of all rows marked as written; returns their number."""
    rows = np.arange(ROWS)
    found, known = table.read(rows)
    assert (found[known] == value(rows[known])).all()
    return int(known.sum())


@pytest.fixture(params=["fp16", "fp32"])
def kind(request):
    return request.param


@pytest.fixture(params=["one shard", "many shards"])
def shards(request, monkeypatch):
    if request.param == "many shards":
        monkeypatch.setattr(memo_table, "SHARD_BYTES", 1000)
    return request.param


def test_what_was_written_is_read_and_nothing_else(tmp_path, kind, shards):
    table = MemoTable(tmp_path / "memo", ROWS, WIDTH, kind)
    assert check(table) == 0 and table.written() == 0
    rows = np.random.default_rng(0).permutation(ROWS)
    table.write(rows[:64], value(rows[:64]))
    table.write(rows[60:100], value(rows[60:100]))
    found, known = table.read(rows[:200])
    assert known.tolist() == [True] * 100 + [False] * 100 and (found[:100] == value(rows[:100])).all()
    assert table.written() == 100
    other = MemoTable(tmp_path / "memo", ROWS, WIDTH, kind)
    assert check(other) == 100
    other.write(rows[100:110], value(rows[100:110]))
    assert check(table) == 110  # also visible to a table opened earlier
    files = len(list((tmp_path / "memo").glob("values-*")))
    assert (files == 1) == (shards == "one shard")


def test_repeated_rows_and_zeros_and_the_last_row(tmp_path, kind):
    table = MemoTable(tmp_path, ROWS, WIDTH, kind)
    rows = np.array([ROWS - 1, 100, 100, 351])  # 100 and 351 are rows of zeros
    table.write(rows, value(rows))
    found, known = table.read(rows)
    assert known.all() and (found == value(rows)).all() and not found[1].any()


def test_death_between_any_two_writes_leaves_no_mark_on_garbage(tmp_path, kind, monkeypatch):
    real, rows = os.pwrite, np.arange(10, 20)
    for deaths in range(21):
        table = MemoTable(tmp_path / str(deaths), ROWS, WIDTH, kind)
        calls = 0

        def mortal(file, data, offset, limit=deaths):
            nonlocal calls
            calls += 1
            if calls > limit:
                raise KeyboardInterrupt
            return real(file, data, offset)

        monkeypatch.setattr(os, "pwrite", mortal)
        if deaths < 20:
            with pytest.raises(KeyboardInterrupt):
                table.write(rows, value(rows))
        else:
            table.write(rows, value(rows))
        monkeypatch.setattr(os, "pwrite", real)
        again = MemoTable(tmp_path / str(deaths), ROWS, WIDTH, kind)
        assert check(again) == max(0, deaths - 10)
        again.write(rows, value(rows))
        assert check(again) == 10


def test_a_mark_without_its_row_is_no_mark(tmp_path, kind):
    """Simulates a power loss, after which pages reached the disk in any order."""
    table = MemoTable(tmp_path, ROWS, WIDTH, kind)
    table.write(np.arange(ROWS), value(np.arange(ROWS)))
    path = tmp_path / "values-00000.bin"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole) // 2) + whole[len(whole) // 2 :])
    half = check(MemoTable(tmp_path, ROWS, WIDTH, kind))
    zeros = sum(not v.any() for v in value(np.arange(ROWS // 2)))
    assert half == ROWS - ROWS // 2 + zeros


def test_each_single_bit_counts(tmp_path, kind):
    table = MemoTable(tmp_path, 4, WIDTH, kind)
    row = np.array([1])
    table.write(row, np.ones((1, WIDTH)))
    path = tmp_path / "values-00000.bin"
    whole = path.read_bytes()
    width = len(whole) // 4
    for bit in range(width * 8):
        data = bytearray(whole)
        data[width + bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert not MemoTable(tmp_path, 4, WIDTH, kind).read(row)[1].any()


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    table = MemoTable(tmp_path, ROWS, WIDTH, "fp16")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="the disk is full, .*cannot grow"):
        table.write(np.arange(3), value(np.arange(3)))


def test_it_takes_no_more_room_than_what_was_written(tmp_path):
    table = MemoTable(tmp_path, 10_000_000, 100, "fp16")
    table.write(np.array([9_999_999]), np.ones((1, 100)))
    assert sum(f.stat().st_blocks * 512 for f in tmp_path.iterdir()) < 100_000
    assert table.read(np.array([9_999_999, 0]))[1].tolist() == [True, False]


WRITER = """
import sys
import numpy as np
from pathlib import Path
from kdx.models.teachers.memo_table import MemoTable
table, rng = MemoTable(Path(sys.argv[1]), {rows}, {width}, "fp16"), np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
while True:
    rows = rng.choice({rows}, 20, replace=False)
    table.write(rows, (np.arange({width}) + 1.0) * (rows[:, None] % 251 - 100))
"""


def test_processes_that_write_together_and_are_killed_leave_only_what_is_right(tmp_path):
    code = WRITER.format(rows=ROWS, width=WIDTH)
    random.seed(0)
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(seed)], stdout=subprocess.PIPE)
        for seed in range(3)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        table = MemoTable(tmp_path, ROWS, WIDTH, "fp16")
        while check(table) < ROWS // 2:
            time.sleep(0.001)
        for writer in writers:
            time.sleep(random.random() * 0.01)
            writer.send_signal(signal.SIGKILL)
            check(table)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    assert check(MemoTable(tmp_path, ROWS, WIDTH, "fp16")) >= ROWS // 2


def test_a_table_that_nobody_uses_holds_no_file(tmp_path: Path):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not say which files are open")
    before = open_files()
    for number in range(3):
        table = MemoTable(tmp_path / str(number), 4, 3, "fp32")
        table.write(np.array([1]), np.ones((1, 3), np.float32))
        assert open_files() > before
        del table
    assert open_files() == before


def test_marks_in_memory_are_reserved_since_every_one_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(memo_table, "in_memory", lambda folder: True)
    table = MemoTable(tmp_path, rows=5000, width=3, kind="fp32")
    assert (tmp_path / "marks.bin").stat().st_blocks * 512 >= 5000 * 4
    assert table.written() == 0


def test_full_memory_is_reported_before_a_mark_is_read(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(memo_table, "in_memory", lambda folder: True)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"the disk is full, so the teacher's memo .* cannot grow"):
        MemoTable(tmp_path, rows=5000, width=3, kind="fp32")


def test_a_file_system_in_memory_is_known(tmp_path):
    assert memo_table.in_memory(Path("/dev/shm")) and not memo_table.in_memory(Path("/proc"))
