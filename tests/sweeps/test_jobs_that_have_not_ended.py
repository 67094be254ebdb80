"""A sweep fails if one of its jobs has begun and not ended, whatever its launcher returns."""

from types import SimpleNamespace

import pytest
from door import SMALL, command
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus

from kdx import train
from kdx.sweeps import sweeps
from kdx.sweeps.sweeps import RECORD, Failures, failures, note_failure, noted


class LostError(BaseException):
    """The process of a job is gone."""


@pytest.fixture
def launcher(monkeypatch):
    """A launcher that answers for jobs that are lost: `launcher(lost)` with a part of their overrides."""
    basic = Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_launcher.BasicLauncher"]
    its_names = basic.launch.__globals__  # pyright: ignore - Hydra loads its plugins a second time
    run_job = its_names["run_job"]

    def launch(lost: str) -> None:
        def attempt(composed, job: str, several: bool) -> float:
            if lost in job.split():
                raise LostError
            return 0.5

        def answered(**named) -> JobReturn:
            try:
                return run_job(**named)
            except LostError:
                answer = JobReturn()
                answer.status, answer.return_value = JobStatus.COMPLETED, None
                return answer

        monkeypatch.setattr(train, "_attempt", attempt)
        monkeypatch.setitem(its_names, "run_job", answered)

    return launch


@pytest.mark.parametrize(("lost", "code"), [("seed=2", 1), ("seed=7", 0)])
def test_a_lost_job_makes_the_sweep_fail(capsys, launcher, tmp_path, lost: str, code: int):
    launcher(lost)
    said = command(capsys, "train", "-m", *SMALL, "method=supervised", "seed=0,2", f"paths.outputs={tmp_path}")
    assert said.code == code
    told = ["kdx: job 1 of the sweep has not ended; the same command continues it"]
    assert said.err == (told if code else [])
    assert not list(tmp_path.rglob(RECORD))


def config(tmp_path, number: int):
    return SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=tmp_path), job=SimpleNamespace(num=number)))


def test_a_job_that_a_cluster_requeues_begins_twice_and_ends_once(tmp_path, monkeypatch, capsys):
    def at(number: int) -> None:
        found = config(tmp_path, number).hydra
        monkeypatch.setattr(sweeps, "HydraConfig", SimpleNamespace(get=lambda: found))

    watch = Failures()
    (tmp_path / RECORD).write_text("failed 2\n")  # of a command that was killed
    watch.on_multirun_start(config(tmp_path, 0))  # pyright: ignore[reportArgumentType]
    for number in (0, 1):
        at(number)
        with pytest.raises(SystemExit), noted():
            raise SystemExit(143)
    at(0)
    with noted():
        note_failure(2)
    watch.on_multirun_end(config(tmp_path, 0))  # pyright: ignore[reportArgumentType]
    assert failures() == [2, 1]  # what failed, and job 1
    assert "job 1 of the sweep has not ended" in capsys.readouterr().err
