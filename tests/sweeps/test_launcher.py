"""`kdx train -m hydra/launcher=fused`: what it says and leaves, against the same sweep run by run."""

import json
from pathlib import Path

import pytest
from door import SMALL, command, folders
from hydra.core.utils import JobReturn
from traces import logged, outcome, record

from kdx.models.weights import save_weights
from kdx.runs.build import make
from kdx.runs.prepare import prepare
from kdx.sweeps.launcher import FusedLauncher

SWEEP = ("method=kd,dkd", "optimizer.lr=0.1,1e30", "trainer.log_steps=1", "data_seed=1")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def teacher(elsewhere: Path) -> str:
    """An override that gives a random teacher to the pair of `SMALL`."""
    net = {"_target_": "kdx.models.small.MLP", "hidden": [8, 8], "dropout": 0.0, "activation": "relu"}
    path = elsewhere / "teacher.safetensors"
    save_weights(path, make({**net, "num_classes": 4, "input_shape": [1, 8, 8]}), {})
    return f"teacher.checkpoint={path}"


@pytest.fixture
def returned(monkeypatch: pytest.MonkeyPatch) -> list[JobReturn]:
    """The settings that Hydra passes to a sweeper."""
    jobs: list[JobReturn] = []
    launch = FusedLauncher.launch

    def spy(self, *arguments, **named):
        jobs.extend(launch(self, *arguments, **named))
        return jobs

    monkeypatch.setattr(FusedLauncher, "launch", spy)
    return jobs


@pytest.mark.slow
def test_a_fused_sweep_is_the_sweep(capsys, teacher, returned, elsewhere):
    common = (*SMALL, teacher, *SWEEP, "trainer.duration.steps=3")
    fused = command(capsys, "train", "-m", "hydra/launcher=fused", "paths.outputs=fused", "logger=wandb", *common)
    plain = command(capsys, "train", "-m", "paths.outputs=plain", "logger=wandb", *common)
    assert fused.code == plain.code == 1  # those with an absurd learning rate fail, the others do not
    told = [line for line in fused.err if ": failed: " in line]
    assert len(told) == 2 and all("optimizer.lr=1e+30: the term" in line for line in told)
    assert fused.err[-1] == plain.err[-1] == "kdx: 2 runs failed"
    assert sum("together" in line for line in fused.err) == 1
    runs = sorted((elsewhere / "fused" / "runs").iterdir())
    assert [p.name for p in runs] == sorted(p.name for p in (elsewhere / "plain" / "runs").iterdir())
    done = [p for p in runs if (p / "DONE").exists()]
    assert len(done) == 2
    for folder in done:
        assert outcome(folder) == {**outcome(elsewhere / "plain" / "runs" / folder.name), "fused": 4}
        assert [{k: v for k, v in line.items() if "time/" not in k} for line in logged(folder)] == record(folder)
    # in the order of the sweep, each with its own measurement, as a sweeper that searches needs it
    values = {json.loads((f / "result.json").read_text())["choices"]["method"]: f for f in done}
    for job in returned:
        method, rate = (next(o for o in job.overrides if o.startswith(k)) for k in ("method=", "optimizer.lr="))
        if rate == "optimizer.lr=1e+30":
            assert job.return_value is None
        else:
            folder = values[method.removeprefix("method=")]
            metrics = json.loads((folder / "result.json").read_text())["metrics"]["last"]
            assert job.return_value == metrics["test/top1"]
    order = [[o for o in job.overrides if o.startswith(("method=", "optimizer.lr="))] for job in returned]
    assert order == [[f"method={m}", f"optimizer.lr={r}"] for m in ("kd", "dkd") for r in ("0.1", "1e+30")]


def test_the_second_time_everything_is_there(capsys, teacher, monkeypatch):
    arguments = ("train", "-m", "hydra/launcher=fused", *SMALL, teacher, "logger=jsonl", "seed=0,1", "data_seed=0")
    first = command(capsys, *arguments)
    monkeypatch.setattr("kdx.runs.run._train", lambda *_: pytest.fail("it trained again"))
    again = command(capsys, *arguments)
    assert first.code == again.code == 0 and again.out == first.out
    assert len(again.err) == 2 and all(": finished " in line for line in again.err)


@pytest.mark.slow
def test_started_over_it_trains_each_run_once(capsys, teacher, monkeypatch):
    from kdx.runs import run

    arguments = ("train", "-m", "hydra/launcher=fused", *SMALL, teacher, "logger=jsonl", "seed=0,1", "data_seed=0")
    command(capsys, *arguments)
    begun, train = [], run._train
    monkeypatch.setattr(run, "_train", lambda *parts: begun.append(parts[1]) or train(*parts))
    again = command(capsys, *arguments, "fresh=true")
    assert again.code == 0 and len(begun) == len(set(begun)) == 2


@pytest.mark.slow
def test_the_limit_is_kept(capsys, teacher, elsewhere):
    limit = "hydra.launcher.limit=2"
    command(
        capsys,
        "train",
        "-m",
        "hydra/launcher=fused",
        limit,
        *SMALL,
        teacher,
        "logger=jsonl",
        "method.temperature=1,2,3",
    )
    fused = sorted(json.loads((p / "result.json").read_text())["fused"] for p in folders(elsewhere))
    assert fused == [1, 2, 2]


def test_what_shares_nothing_trains_alone(capsys, teacher, elsewhere):
    said = command(capsys, "train", "-m", "hydra/launcher=fused", *SMALL, teacher, "logger=jsonl", "seed=0,1")
    assert said.code == 0 and not any("together" in line for line in said.err)  # data_seed follows seed
    assert [json.loads((p / "result.json").read_text())["fused"] for p in folders(elsewhere)] == [1, 1]


def test_runs_that_cannot_be_are_reported_before_the_others_train(capsys, teacher, monkeypatch):
    trained = []
    monkeypatch.setattr("kdx.pool.pool.run_all", lambda configs, *_: trained.extend(configs) or ({}, []))
    monkeypatch.setattr("kdx.train._train", lambda composed, sweeps: prepare(composed) and None)
    # each value is right by itself, and two of them together are not
    axes = ("trainer.batch_size=16,8", "teacher.memo=false,true", "seed=0,1")
    common = (*SMALL, teacher, "method=kd", "logger=jsonl", "augmentation.cycle=3", "data_seed=0")
    said = command(capsys, "train", "-m", "hydra/launcher=fused", *common, *axes)
    told = [line for line in said.err if "teacher.memo=true needs a trainer.batch_size of at least" in line]
    assert len(trained) == 6 and len(told) == 2
    assert "kdx: 2 of 8 runs cannot be; 6 are trained" in said.err
    assert said.code == 1 and said.err[-1] == "kdx: 2 runs failed"
