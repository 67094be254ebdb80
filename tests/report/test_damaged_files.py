"""Damaged files of finished runs: each is named, and the other runs are shown."""

import json
import random
from pathlib import Path

import pytest
from door import command
from fabricate import changed, fabricate

from kdx.commands import status
from kdx.core.errors import DamagedError
from kdx.runs.checksums import read_checked, write_checksums
from kdx.runs.results import finished

FILES = ("config.yaml", "result.json", "metrics.jsonl", "DONE")


def flip(content: bytes, seed: int) -> bytes:
    """One bit of a byte changed."""
    draw = random.Random(seed)
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]


DAMAGES = {
    "a bit": lambda content: flip(content, 5),
    "half": lambda content: content[: len(content) // 2],
    "nothing": lambda content: b"",
    "noise": lambda content: random.Random(3).randbytes(300),
    "another number": lambda content: content.replace(b"0", b"7", 1),
    "text": lambda content: b"hello",
    "a list": lambda content: b"[1, 2]",
}


@pytest.fixture
def runs(tmp_path: Path, tiny) -> Path:
    """Two experiments of two seeds each, sealed."""
    kd = tiny("method=kd")
    for weight in (0.5, 0.9):
        for seed in (0, 1):
            config = changed(kd, seed=seed, data_seed=seed, teacher__seed=seed, method__weights__kd=weight)
            lines: list[dict[str, float | None]] = [
                {"step": s, "epoch": s / 4, "test/top1": 0.1 * s, "train/loss": 1.0} for s in (0, 4, 8)
            ]
            folder = tmp_path / "runs" / f"kd-{weight}-seed{seed}"
            fabricate(folder, config, {"test/top1": 0.8 + weight / 10}, lines=lines)
            (folder / ".lock").touch()
            write_checksums(folder)
    return tmp_path / "runs"


# an empty DONE is that of a run of an older version
CASES = [(name, damage) for name in FILES for damage in DAMAGES if (name, damage) != ("DONE", "nothing")]


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_one_damaged_file_is_named_and_the_rest_is_shown(capsys, runs, tmp_path, name, damage):
    victim = runs / "kd-0.5-seed0"
    before = (victim / name).read_bytes()
    content = DAMAGES[damage](before)
    assert content != before
    (victim / name).write_bytes(content)
    # a DONE with a changed checksum makes its file look changed
    named = [f"{victim / file}" for file in ((*FILES,) if name == "DONE" else (name,))]

    said = command(capsys, "report", str(runs), f"to={tmp_path / 'page'}", "pictures=false")
    assert said.code == 0
    assert any(path in line for path in named for line in said.err), said.err
    expected = "4 runs in 2 groups" if name == "metrics.jsonl" else "3 runs in 2 groups"
    if name != "DONE":
        assert any(line == f"kdx: {expected}" for line in said.err), said.err
    assert any(path in (tmp_path / "page" / "index.html").read_text() for path in named)

    said = command(capsys, "compare", f"{runs}/kd-0.5-", f"{runs}/kd-0.9-")
    assert said.code == 0 and "n = 2" in said.out
    if name in ("config.yaml", "result.json"):
        assert len(said.err) == 1 and named[0] in said.err[0]

    states = {entry.folder.name: entry for entry in status.survey(runs)}
    assert len(states) == 4
    if name in ("config.yaml", "result.json"):
        assert states[victim.name].state == "damaged" and named[0] in states[victim.name].error
    assert sum(entry.state == "done" for entry in states.values()) >= 3


def test_a_result_that_changed_is_refused_where_a_run_would_return_it(runs):
    victim = runs / "kd-0.5-seed0"
    result = json.loads((victim / "result.json").read_text())
    result["metrics"]["last"]["test/top1"] = 0.99
    (victim / "result.json").write_text(json.dumps(result))
    with pytest.raises(DamagedError, match="result.json is damaged: it changed after the run had finished"):
        finished(victim)


def test_runs_of_older_versions_have_an_empty_mark_and_are_read(runs):
    victim = runs / "kd-0.5-seed0"
    (victim / "DONE").write_bytes(b"")
    assert finished(victim) is not None and read_checked(victim, "config.yaml")
    result = json.loads((victim / "result.json").read_text())
    (victim / "result.json").write_text(json.dumps({**result, "metrics": {"last": {"test/top1": "high"}}}))
    with pytest.raises(DamagedError, match=r"result.json is damaged: its metrics.last.test/top1 is 'high'"):
        finished(victim)


def test_escape_sequences_of_a_run_are_not_printed_raw(capsys, tmp_path):
    folder = tmp_path / "evil\x1b[31m"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / "error.txt").write_text("Traceback\nkdx.core.errors.UserError: \x1b]0;owned\x07 no data\n")
    said = command(capsys, "status", str(tmp_path))
    assert "\x1b" not in said.out and "\x07" not in said.out
    assert "\\x1b[31m" in said.out and "no data" in said.out


def test_compare_names_damaged_predictions_and_goes_on(capsys, runs):
    path = runs / "kd-0.5-seed0" / "predictions.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{not json")
    said = command(capsys, "compare", f"{runs}/kd-0.5-", f"{runs}/kd-0.9-")
    assert said.code == 0 and "n = 2" in said.out
    assert len(said.err) == 1 and f"{path} is damaged: " in said.err[0]
