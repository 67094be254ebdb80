"""Signals that end a run: it saves first, says so, and goes on to the bit; no process is left behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from door import SMALL
from traces import outcome

from kdx.engine.optim.update import Joint
from kdx.pool.run_fused import run_together
from kdx.runs import signals
from kdx.runs.run import run

NUMBERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers():
    """Default handlers, the process's own ones afterwards, and no signal left over."""
    before = {number: signal.getsignal(number) for number in (*NUMBERS, signal.SIGINT)}
    for number in NUMBERS:  # a parent such as nohup may have them ignored
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signals._caught.clear()


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send a signal to this process in the middle of a step."""
    original, seen = Joint.__call__, 0

    def step_and_signal(self, *arguments):
        nonlocal seen
        seen += 1
        if seen == step:
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    monkeypatch.setattr(Joint, "__call__", step_and_signal)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_saves_and_the_run_goes_on_to_the_bit(tiny, tmp_path, monkeypatch, number):
    config = tiny("method=kd", "teacher.checkpoint=null", "trainer.ema=0.8", "augmentation=mixup")
    calm = outcome(run(replace(config, paths=replace(config.paths, runs=str(tmp_path / "calm")))).folder)
    signals.install()
    with monkeypatch.context() as patch:
        at_step(patch, 5, number)
        with pytest.raises(signals.SignalledError) as stopped:
            run(config)
    told = signals.stop_message(stopped.value)
    assert told == f"{signal.Signals(number).name}: saved at step 5; the same command resumes"
    assert signals.exit_code(stopped.value) == 128 + number
    signals.install()
    assert outcome(run(config).folder) == calm


def test_every_fused_run_is_saved(tiny, tmp_path, monkeypatch):
    configs = [tiny("method=kd", "teacher.checkpoint=null", f"seed={seed}", "data_seed=0") for seed in (0, 1)]
    apart = [replace(c, paths=replace(c.paths, runs=str(tmp_path / "calm"))) for c in configs]
    calm = [outcome(run(config).folder) for config in apart]
    signals.install()
    with monkeypatch.context() as patch:
        at_step(patch, 7, signal.SIGTERM)
        with pytest.raises(signals.SignalledError):
            list(run_together(configs))
    folders = sorted(p for p in (tmp_path / "runs").iterdir())
    assert [(folder / "checkpoints" / "last.pt").exists() for folder in folders] == [True, True]
    signals.install()
    results = dict(run_together(configs))
    for place, expected in enumerate(calm):
        assert {**outcome(results[place].folder), "fused": 1} == {**expected, "fused": 1}


def test_a_second_signal_and_one_before_training_stop_at_once():
    signals.install()
    with pytest.raises(signals.SignalledError) as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert stopped.value.step is None and "goes on from the last checkpoint" in signals.stop_message(stopped.value)
    signals.install()
    with signals.training():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.caught() == signal.SIGHUP
        with pytest.raises(signals.SignalledError):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    signals.install()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signals.caught() is None


LAUNCHERS = {
    "one by one": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "fused": ("hydra/launcher=fused", "data_seed=0"),
    "fused in jobs": ("hydra/launcher=fused", "hydra.launcher.jobs=2", "data_seed=0"),
}


def sweep(folder: Path, launcher: str) -> subprocess.Popen[str]:
    own = [word for word in SMALL if word != "debug=fast"]
    command = [sys.executable, "-m", "kdx.cli", "train", "-m", *LAUNCHERS[launcher], *own, "method=kd,dkd", "seed=0,1"]
    command += ["teacher.checkpoint=null", "trainer.duration.epochs=null", "trainer.duration.steps=1000000"]
    command += ["logger=jsonl", "trainer.device=cpu", "trainer.checkpoint_seconds=0.2", f"paths.outputs={folder}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_until(condition, limit: float) -> bool:
    ends = time.monotonic() + limit
    while not condition() and time.monotonic() < ends:
        time.sleep(0.1)
    return condition()


def alive(group: int) -> list[str]:
    """Command lines of a process group's living processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["ctrl-c", "kill", "kill -9"])
def test_a_sweep_ends_in_one_line_without_orphans(tmp_path, launcher, number):
    process = sweep(tmp_path, launcher)
    assert wait_until(lambda: bool(list(tmp_path.glob("runs/*/checkpoints/last.pt"))), 240), process.poll()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    if number != signal.SIGKILL:
        told = [line for line in said.splitlines() if "the same command" in line]
        # each worker that was told to save says so
        assert (len(told) == 1 or number == signal.SIGTERM) and told and "Traceback" not in said, said
    assert wait_until(lambda: not alive(process.pid), 120), alive(process.pid)
    assert not [path for path in Path("/dev/shm").glob("*") if f"_{process.pid}_" in path.name]
