"""A sweep that is killed at random moments, and two at once in one folder, against one that nobody disturbed."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from traces import outcome

from kdx.commands.status import runs
from kdx.runs.lock import is_locked
from kdx.runs.results import Result, finished
from kdx.tables.table import Table

KILLS = 5
SWEEP = (
    "-m",
    "method=kd,dkd",
    "method.temperature=2,4",
    "seed=0,1,2",
    "data_seed=0",  # shared, so that runs can train together
    "dataset=digits",
    "trainer.duration.steps=200",
    "teacher.recipe=['trainer.duration.steps=200','augmentation=shift']",
    "trainer.checkpoint_seconds=0.05",
    "trainer.log_steps=50",
    "evals.test.every=5",
    "trainer.device=cpu",
    "logger=jsonl",
)
LAUNCHERS = {"one by one": (), "together": ("hydra/launcher=fused",)}


def start(folder: Path, launcher: str) -> subprocess.Popen[str]:
    """The command, always the same."""
    command = [sys.executable, "-m", "kdx.cli", "train", *SWEEP, *LAUNCHERS[launcher], f"paths.outputs={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said


def left(folder: Path) -> dict[str, dict]:
    """The outcomes of all runs of a folder, without times and the number of runs that trained together."""
    found = {run.relative_to(folder).as_posix(): outcome(run) for run in runs(folder)}
    return {name: {key: value for key, value in of.items() if key != "fused"} for name, of in found.items()}


def table(folder: Path) -> list[list[str]]:
    """The table of the runs with every digit, seconds aside."""
    rows: dict[str, dict[int, Result]] = {}
    for run in sorted((folder / "runs").iterdir()):
        result = finished(run)
        assert result is not None
        rows.setdefault(run.name.split("-")[1], {})[result.data["seed"]] = result
    columns = ["test/top1", "test/nll", "test/ece", "fidelity/test/agreement", "fidelity/test/kl"]
    made = Table.build(
        title="", results=rows, columns=columns, protocol="last", baseline=None, cost_row=None, teacher_row=True
    )
    return list(csv.reader(StringIO(made.csv())))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of an undisturbed sweep, and the seconds that its training took."""
    folder = tmp_path_factory.mktemp("calm")
    process = start(folder, "one by one")
    began = first_claim(folder, process)
    finish(process)
    assert began is not None
    assert len(left(folder)) == 13  # with the teacher's
    return folder, time.monotonic() - began


def first_claim(folder: Path, process: subprocess.Popen[str]) -> float | None:
    """The moment at which the command began to train; None if it ended first."""
    while not any(map(is_locked, runs(folder))):
        if process.poll() is not None:
            return None
        time.sleep(0.01)
    return time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_killed_five_times_it_ends_in_the_same_table(tmp_path: Path, calm: tuple[Path, float], launcher: str):
    undisturbed, seconds = calm
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    interrupted = 0
    for _ in range(KILLS):
        process = start(tmp_path, launcher)
        if first_claim(tmp_path, process) is not None:
            time.sleep(moments.uniform(0, seconds / (KILLS + 2)))
        if process.poll() is not None:  # the machine has become faster since `calm` was measured
            finish(process)
            break
        interrupted += sum(map(is_locked, runs(tmp_path)))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert interrupted
    finish(start(tmp_path, launcher))
    assert left(tmp_path) == left(undisturbed), f"seed {seed}"
    assert table(tmp_path) == table(undisturbed)


@pytest.mark.slow
def test_two_at_once_in_one_folder_share_the_runs(tmp_path: Path, calm: tuple[Path, float]):
    both = [start(tmp_path, "one by one") for _ in range(2)]
    told = [process.communicate(timeout=600)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert any("being trained by another process" in said for said in told)
    assert left(tmp_path) == left(calm[0])
    assert table(tmp_path) == table(calm[0])
