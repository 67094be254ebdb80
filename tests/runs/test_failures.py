"""Runs that cannot go on: what they say, what they leave, and how they are helped."""

import errno
import resource
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from conftest import CLASSES, STUDENT, TINY
from traces import outcome

from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.engine.record.meter import NonFiniteError
from kdx.runs.results import save_predictions
from kdx.runs.run import name, run

EACH_STEP = "trainer.checkpoint_seconds=0"


def folder_of(config: RunConfig) -> Path:
    return Path(config.paths.runs) / name(config)


def fails_at(monkeypatch, path: str, call: int, error: Exception):
    """Make a function fail from its call number `call` on."""
    original, calls = resolve_name(path), []

    def wrapped(*arguments, **named):
        calls.append(1)
        if len(calls) >= call:
            raise error
        return original(*arguments, **named)

    monkeypatch.setattr(path, wrapped)


@pytest.mark.parametrize("log_steps", [1, 3, 100])
def test_a_term_that_breaks_is_named_with_its_step(tiny, log_steps: int):
    config = tiny("method=supervised", "optimizer.lr=1e30", f"trainer.log_steps={log_steps}", EACH_STEP)
    with pytest.raises(NonFiniteError, match=r"the term 'ce' is (nan|inf) at step [1-3];") as found:
        run(config)
    assert "\n" not in str(found.value)
    left = {p.name for p in folder_of(config).iterdir()}
    assert "error.txt" in left and not left & {"DONE", "student.safetensors", "result.json"}
    assert "NonFiniteError" in (folder_of(config) / "error.txt").read_text()


def test_weights_that_the_last_step_breaks_are_not_delivered(tiny):
    config = tiny("method=supervised", "optimizer.lr=1e38", "optimizer.weight_decay=1e3", "trainer.duration.steps=1")
    with pytest.raises(NonFiniteError, match=r"the student's '.+' is not finite after the last step;"):
        run(config)
    assert not {p.name for p in folder_of(config).iterdir()} & {"DONE", "student.safetensors", "result.json"}


def test_a_failed_command_is_one_line_and_an_exit_code(tmp_path, capsys):
    from kdx.train import main

    overrides = [*CLASSES, *TINY, *STUDENT, f"paths.outputs={tmp_path}", "method=supervised", "optimizer.lr=1e30"]
    with pytest.raises(SystemExit) as exit:
        main(overrides)
    said = capsys.readouterr()
    assert exit.value.code == 1 and said.out == ""
    assert said.err.startswith("kdx: the term 'ce'") and said.err.count("\n") == 1


def test_a_full_disk_stops_a_run_that_then_resumes(tiny, tmp_path, monkeypatch):
    config = tiny("augmentation=mixup", "trainer.ema=0.5", EACH_STEP)
    calm = outcome(run(replace(config, paths=replace(config.paths, runs=str(tmp_path / "calm")))).folder)
    for failing, call in (("torch.save", 3), ("torch.save", 2)):
        with monkeypatch.context() as patch:
            fails_at(patch, failing, call, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(OSError, match="No space left on device"):
                run(config)
        checkpoints = {p.name for p in (folder_of(config) / "checkpoints").iterdir()}
        assert checkpoints == {"last.pt", "previous.pt"}
    state = torch.load(folder_of(config) / "checkpoints" / "last.pt", weights_only=True)
    assert state["step"] == 3  # two steps saved by the first start, one by the second
    assert outcome(run(config).folder) == calm
    assert not (folder_of(config) / "error.txt").exists()


@pytest.mark.parametrize("path", ["kdx.runs.export.save_weights", "kdx.runs.export.write_json"])
def test_a_disk_that_fills_up_at_the_very_end(tiny, monkeypatch, path: str):
    config = tiny("method=supervised")
    with monkeypatch.context() as patch:
        fails_at(patch, path, 1, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OSError, match="No space left"):
            run(config)
    assert not (folder_of(config) / "DONE").exists()
    with monkeypatch.context() as patch:
        fails_at(patch, "torch.Tensor.backward", 1, AssertionError("it was trained again"))
        assert run(config).metric("test/top1") is not None


def test_two_damaged_checkpoints_are_one_line_and_fresh_helps(tiny, tmp_path, monkeypatch):
    config = tiny("method=supervised", EACH_STEP)
    calm = outcome(run(replace(config, paths=replace(config.paths, runs=str(tmp_path / "calm")))).folder)
    with monkeypatch.context() as patch:
        fails_at(patch, "torch.save", 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(config)
    for path in (folder_of(config) / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"damaged checkpoint: .*last.pt.*previous.pt.*fresh=true") as found:
        run(config)
    assert "\n" not in str(found.value)
    assert outcome(run(replace(config, fresh=True)).folder) == calm


@pytest.mark.parametrize("where", ["outputs", "runs"])
def test_a_place_that_cannot_be_written(tiny, tmp_path, where: str):
    config = tiny("method=supervised")
    place = tmp_path / "place"
    place.write_text("a file")
    runs = str(place / "runs" if where == "outputs" else place)
    config = replace(config, paths=replace(config.paths, runs=runs))
    with pytest.raises(UserError, match=r"cannot write to .*place") as found:
        run(config)
    assert "\n" not in str(found.value)


def test_a_program_error_keeps_its_traceback(tiny, monkeypatch):
    config = tiny("method=supervised")
    with monkeypatch.context() as patch:
        fails_at(patch, "kdx.runs.training.build_evaluators", 1, ZeroDivisionError("a mistake of ours"))
        with pytest.raises(ZeroDivisionError):
            run(config)
    text = (folder_of(config) / "error.txt").read_text()
    assert "Traceback" in text and "ZeroDivisionError: a mistake of ours" in text
    run(config)
    assert not (folder_of(config) / "error.txt").exists()


def test_a_disk_that_is_full_of_predictions(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*: File too large"):
            save_predictions(tmp_path, {"logits": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
