"""Ready-made axes, and sweeps whose runs are in other processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from door import SMALL, command, folders

from kdx.config.compose import ConfigError, compose, points
from kdx.config.layout import options
from kdx.runs.prepare import examine
from kdx.sweeps.sweeps import expand


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_ready_made_sweep_is_the_axes_of_its_file():
    assert expand(["method=kd", "sweep=temperature"]) == (
        ["method=kd", "method.temperature=1,2,4,8,16", "seed=0,1,2"],
        True,
    )
    assert expand(["method=kd"]) == (["method=kd"], False)


def test_an_axis_that_is_given_takes_the_place_of_the_ready_made_one():
    assert expand(["sweep=regime", "seed=7"])[0] == ["seed=7", "dataset.fraction=0.1,0.3,1"]


@pytest.mark.parametrize("typed", [["sweep=temperature,weight"], ["sweep=temperature", "sweep=weight"]])
def test_two_ready_made_sweeps_are_crossed(typed: list[str]):
    overrides, _ = expand([*typed, "seed=1"])
    axes = ("sweep=temperature", "sweep=weight")
    assert set(overrides) == {"seed=1"}.union(*(expand([axis, "seed=1"])[0] for axis in axes))
    assert len(overrides) == 3


def test_an_unknown_sweep_is_reported_with_what_was_meant():
    with pytest.raises(ConfigError, match="unknown sweep 'temprature'; did you mean 'temperature'"):
        expand(["sweep=temprature"])


@pytest.mark.parametrize("name", options("sweep"))
def test_each_point_of_a_ready_made_sweep_is_a_config(name: str):
    found = points(expand(["method=kd", f"sweep={name}"])[0])
    assert len(found) > 3
    for point in found:
        examine(compose(point))


@pytest.mark.slow
def test_a_ready_made_sweep_runs_without_a_flag(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    said = command(capsys, "train", *SMALL, "logger=none", "method=alone", "sweep=regime", "dataset.fraction=0.5,1")
    assert (said.code, len(folders(tmp_path))) == (0, 6)


def test_the_flag_may_stand_anywhere(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    said = command(capsys, "train", *SMALL, "logger=none", "method=alone", "-m", "seed=0,1")
    assert (said.code, len(folders(tmp_path))) == (0, 2)


def kdx(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "kdx.cli", "train", *SMALL, "logger=jsonl", *arguments]


def metrics(run: Path) -> list[dict[str, float]]:
    """The record of a run, times aside."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


@pytest.mark.slow
def test_joblib_runs_several_at_a_time_and_tells_every_failure(tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = ["-m", "method=kd,at", "seed=0,1"]
    done = subprocess.run(
        kdx(*sweep, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "AT reads feature maps" in line]
    assert len(lines) == 2 and "kdx: 2 runs failed" in done.stderr
    parallel = folders(tmp_path)
    assert len(parallel) == 2 and len(folders(tmp_path, "teachers")) == 1
    # the same runs, one after another, to the bit
    records = {run.name: metrics(run) for run in parallel}
    again = subprocess.run(kdx(*sweep, "paths.outputs=serial"), capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert {run.name: metrics(run) for run in Path("serial/runs").iterdir()} == records


@pytest.mark.slow
def test_a_preempted_job_of_submitit_goes_on_where_it_was(tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    run = ["-m", "method=alone", "seed=3", "trainer.duration.epochs=null", "trainer.duration.steps=1500"]
    run += ["trainer.checkpoint_seconds=0.1", "trainer.log_steps=50"]
    job = subprocess.Popen(kdx(*run, "hydra/launcher=submitit_local"), stderr=subprocess.PIPE, text=True)
    try:
        process = _wait_for(lambda: _worker(tmp_path), job)
        _wait_for(lambda: any(tmp_path.glob("outputs/runs/*/checkpoints/last.pt")), job)
        os.kill(process, signal.SIGUSR2)  # what SLURM sends before it takes a node away
        assert job.wait(400) == 0
    finally:
        job.kill()
    assert any("preempted" in log.read_text() for log in tmp_path.rglob("*_log.err"))
    (folder,) = folders(tmp_path)
    undisturbed = subprocess.run(kdx(*run[1:], "paths.outputs=undisturbed"), capture_output=True, check=False)
    assert undisturbed.returncode == 0
    (other,) = Path("undisturbed/runs").iterdir()
    assert metrics(folder) == metrics(other)
    assert (folder / "student.safetensors").read_bytes() == (other / "student.safetensors").read_bytes()


def _worker(folder: Path) -> int | None:
    """The process that submitit runs the job of this folder in."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "submitit.core._submit" in words and any(str(folder) in word for word in words):
            return int(entry.name)
    return None


def _wait_for(look, job: subprocess.Popen[str]):
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        if found := look():
            return found
        assert job.poll() is None, job.stderr and job.stderr.read()
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_a_launcher_that_is_not_installed_is_reported_in_a_line(capsys, monkeypatch):
    monkeypatch.setattr("kdx.sweeps.sweeps.find_spec", lambda module: None)
    said = command(capsys, "train", "-m", *SMALL, "hydra/launcher=joblib", "method=kd")
    assert said.code == 2
    assert said.err == ["kdx: hydra/launcher=joblib needs an extra that is not installed: pip install 'kdx[sweeps]'"]
