"""The ledger as a view of run directories."""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from kdx.commands import status
from kdx.runs.checksums import write_checksums
from kdx.runs.lock import LockedError, is_locked, locked

CONFIG = "trainer:\n  batch_size: 10\n  duration:\n    epochs: {epochs}\n    steps: {steps}\n    examples: {examples}\n"


def make(folder: Path, *, lines=(), epochs="null", steps="null", examples="null", error="", done=False) -> Path:
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / "config.yaml").write_text(CONFIG.format(epochs=epochs, steps=steps, examples=examples))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if error:
        (folder / "error.txt").write_text(error)
    if done:
        (folder / "result.json").write_text("{}")
        write_checksums(folder)
    return folder


def line(step: int, epoch: float, seconds: float) -> dict:
    return {"step": step, "epoch": epoch, "time/seconds": seconds}


@contextlib.contextmanager
def another_process_holding(folder: Path):
    """The same, to the system: a lock belongs to an open file, not to a process."""
    with locked(folder):
        yield


def test_each_state(tmp_path, monkeypatch):
    make(tmp_path / "runs" / "a", done=True)
    make(tmp_path / "runs" / "b", error="Traceback ...\n  File ...\nkdx.core.errors.UserError: no such data\n")
    make(tmp_path / "runs" / "c", lines=[line(5, 0.5, 3.0)], steps=20)
    running = make(tmp_path / "teachers" / "d", lines=[line(5, 0.5, 3.0)], steps=20)
    os.utime(running / "metrics.jsonl", (1000.0, 1000.0))
    monkeypatch.setattr(status.time, "time", lambda: 1000.5)
    (tmp_path / "studies").mkdir()
    with another_process_holding(running):
        found = {entry.folder.name: entry for entry in status.survey(tmp_path)}
    assert {name: entry.state for name, entry in found.items()} == {
        "a": "done",
        "b": "failed",
        "c": "waiting",
        "d": "running",
    }
    assert found["b"].error == "no such data"
    assert found["c"].progress == found["d"].progress == 0.25
    assert found["c"].seconds_left == 9.0
    assert found["d"].seconds_left == 8.5  # less what passed since the line was written


@pytest.mark.parametrize(
    ("duration", "progress"), [({"epochs": 2}, 0.25), ({"steps": 50}, 0.1), ({"examples": 200}, 0.25)]
)
def test_progress_in_every_unit(tmp_path, duration, progress):
    folder = make(tmp_path / "run", lines=[line(1, 0.1, 1.0), line(5, 0.5, 4.0)], **duration)
    assert status.look(folder).progress == pytest.approx(progress)
    assert status.look(folder).seconds_left == pytest.approx(4 * (1 - progress) / progress)


def test_half_a_line_and_an_empty_record(tmp_path):
    folder = make(tmp_path / "run", lines=[line(5, 0.5, 4.0)], steps=10)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "epo')
    assert status.look(folder).progress == 0.5
    assert status.look(make(tmp_path / "other", steps=10)).progress is None


def test_a_failure_that_is_being_run_again_is_running(tmp_path):
    folder = make(tmp_path / "run", error="ValueError: no\n")
    with another_process_holding(folder):
        assert status.look(folder).state == "running"
    assert status.look(folder).state == "failed"


def test_a_message_of_several_lines_and_an_error_without_one(tmp_path):
    assert status.look(make(tmp_path / "a", error="Traceback:\n  x\nKeyError: 'x'\n")).error == "'x'"
    assert status.look(make(tmp_path / "b", error="Traceback:\n  x\nAssertionError\n")).error == "AssertionError"


def _hold(folder: Path, ready) -> None:
    with locked(folder):
        ready.set()
        time.sleep(60)


def test_a_killed_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(300) and is_locked(tmp_path)
    with pytest.raises(LockedError), locked(tmp_path):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not is_locked(tmp_path)


def test_looking_does_not_stop_a_claim(tmp_path, monkeypatch):
    """A look takes the lock for an instant; a claim in that instant waits it out."""
    import fcntl

    monkeypatch.setattr("kdx.runs.lock.PATIENCE", 300.0)  # the timer of a busy machine may be late
    (tmp_path / ".lock").touch()
    with open(tmp_path / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        import threading

        threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with locked(tmp_path):
            assert is_locked(tmp_path)


def test_of_a_finished_run_three_small_files_are_read(tmp_path):
    read = list[str]()
    for index in range(10):
        folder = make(tmp_path / "runs" / f"r{index:04}", lines=[line(5, 0.5, 3.0)], done=True)
        (folder / "student.safetensors").write_bytes(b"weights")

    def heard(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | Path) and listening:
            read.append(Path(arguments[0]).name)

    listening = True
    sys.addaudithook(heard)  # it cannot be removed, so it stops listening
    try:
        entries = status.survey(tmp_path)
    finally:
        listening = False
    assert [entry.state for entry in entries] == ["done"] * 10
    assert set(read) <= {"DONE", "config.yaml", "result.json", "runs"} and len(read) <= 50


def test_a_thousand_finished_runs_are_a_line(tmp_path):
    done = [status.Entry(tmp_path / f"r{index}", "done", 1.0, 0.0, "") for index in range(1000)]
    make(tmp_path / "runs" / "last", lines=[line(5, 0.5, 3.0)], steps=20)
    entries = [*done, *status.survey(tmp_path)]
    shown = status.show(entries, False).splitlines()
    assert len(shown) == 2 and shown[-1] == "1,000 done, 0 running, 0 failed, 1 waiting"
    assert len(status.show(entries, True).splitlines()) == 1002


def test_the_command(tmp_path, capsys):
    make(tmp_path / "run", lines=[line(5, 0.5, 600.0)], steps=10)
    status.main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "waiting" in out and "50 %" in out and "10 min left" in out
    with pytest.raises(SystemExit) as end:
        status.main([str(tmp_path / "nowhere")])
    assert end.value.code == 2 and "no such directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        status.main(["--alll"])


def test_the_command_needs_no_torch():
    import subprocess

    code = "import sys; from kdx.cli import main; main(['status', '/nonexistent-is-wrong']) "
    check = f"import sys\ntry:\n  exec({code!r})\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert out.stdout.strip() == "False", out.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (89, "89 s"), (720, "12 min"), (12000, "3 h 20 min"), (200000, "2 d 7 h")]
)
def test_spans(seconds, text):
    assert status.span(seconds) == text


def test_no_runs(tmp_path):
    assert status.show(status.survey(tmp_path), False) == "no runs here"
