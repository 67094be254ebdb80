"""Checkpoints are written atomically."""

import errno
import os
import resource

import pytest
import torch

from kdx.core.errors import UserError
from kdx.engine.checkpoint import Checkpoints


def state(n: int) -> dict:
    return {"step": n, "weights": torch.full((1000,), float(n)), "names": ["a"], "nothing": None}


@pytest.fixture
def two(tmp_path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints", "0" * 16)
    assert checkpoints.load() is None
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    return checkpoints


def test_the_last_and_the_one_before(two: Checkpoints):
    loaded = two.load()
    assert loaded["step"] == 2 and torch.equal(loaded["weights"], state(2)["weights"])
    two.last.unlink()
    assert two.load()["step"] == 1
    two.save(state(3))
    assert two.load()["step"] == 3 and torch.load(two.previous)["step"] == 1
    two.clear()
    assert two.load() is None and not list(two.last.parent.iterdir())


def test_a_checkpoint_of_another_run_is_refused_by_name(two: Checkpoints):
    other = Checkpoints(two.last.parent, "f" * 16)
    with pytest.raises(UserError, match=f"last.pt is a checkpoint of the run {'0' * 16}, not of this run .{'f' * 16}"):
        other.load()
    torch.save({key: value for key, value in torch.load(two.last).items() if key != "run"}, two.last)
    assert other.load()["step"] == 2  # written before runs were recorded


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_cut_short_falls_back_on_the_one_before_and_says_so(two: Checkpoints, share: float, capsys):
    os.truncate(two.last, int(two.last.stat().st_size * share))
    assert two.load()["step"] == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"damaged checkpoint: {two.last}" in line and f"continues from {two.previous}" in line


def test_flipped_bits_are_noticed(two: Checkpoints):
    content = bytearray(two.last.read_bytes())
    place = content.index(torch.full((1000,), 2.0).numpy().tobytes()) + 2000
    content[place] ^= 0x10
    two.last.write_bytes(content)
    assert two.load()["step"] == 1


def test_both_damaged_is_one_line_that_says_what_helps(two: Checkpoints):
    two.last.write_bytes(b"")
    two.previous.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match="damaged checkpoint: .*last.pt .*previous.pt .*; fresh=true") as found:
        two.load()
    assert "\n" not in str(found.value)


def test_a_file_of_another_version(two: Checkpoints):
    torch.save({"format": 0, "step": 5}, two.last)
    with pytest.raises(UserError, match="no checkpoint of this version of kdx; fresh=true"):
        two.load()


@pytest.mark.parametrize("failing", ["torch.save", "os.fsync"])
def test_a_full_disk_leaves_the_last_one_as_it_was(two: Checkpoints, monkeypatch, failing: str):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = two.last.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(OSError, match="No space left"):
            two.save(state(3))
    assert two.last.read_bytes() == before and sorted(p.name for p in two.last.parent.iterdir()) == [
        "last.pt",
        "previous.pt",
    ]
    two.save(state(3))
    assert two.load()["step"] == 3


@pytest.mark.parametrize("room", [100, 50_000, 3_000_000])
def test_what_the_disk_says_in_the_middle_of_a_file_is_reported(two: Checkpoints, room: int):
    before = two.last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            two.save({"weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert two.last.read_bytes() == before and not list(two.last.parent.glob(".*.part"))
