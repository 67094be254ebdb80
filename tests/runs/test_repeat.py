"""The same command twice, the same run under other circumstances, and what a run says of itself."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch
from traces import outcome, record

from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.models.weights import load_weights
from kdx.runs.build import build_network
from kdx.runs.lock import locked
from kdx.runs.run import name, run


def elsewhere(config: RunConfig, place) -> RunConfig:
    return replace(config, paths=replace(config.paths, runs=str(place)))


@pytest.mark.parametrize(
    "overrides",
    [
        ("augmentation=standard",),
        ("augmentation=none", "method=supervised", "trainer.precision=bf16"),
        ("augmentation=trivial", "dataset.val_fraction=0.2", "trainer.ema=0.5", "method=vid"),
    ],
    ids=["kd", "supervised", "vid"],
)
def test_a_config_and_a_seed_are_the_bits(tiny, tmp_path, overrides: tuple[str, ...]):
    config = tiny(*overrides)
    torch.manual_seed(1)
    first = run(config)
    torch.manual_seed(2)  # what the process did before is no part of it
    torch.rand(100)
    second = run(elsewhere(config, tmp_path / "again"))
    assert outcome(first.folder) == outcome(second.folder)
    other = run(tiny(*overrides, "seed=1"))
    assert outcome(other.folder)["weights"] != outcome(first.folder)["weights"]


def test_a_finished_run_is_returned_as_it_is(tiny, monkeypatch):
    config = tiny()
    result = run(config)
    before = {p: p.stat().st_mtime_ns for p in result.folder.rglob("*") if p.is_file()}
    monkeypatch.setattr("kdx.runs.run._train", lambda *_: pytest.fail("it trained again"))
    again = run(config)
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in result.folder.rglob("*") if p.is_file()} == before


def test_fresh_starts_over(tiny):
    config = tiny()
    first = outcome(run(config).folder)
    for path in (folder := run(config).folder).iterdir():
        if path.is_file():
            path.write_text("") if path.name in ("metrics.jsonl", "student.safetensors") else None
    result = run(replace(config, fresh=True))
    assert result.folder == folder and outcome(folder) == first


def test_a_fresh_run_that_fails_leaves_no_student_of_the_run_before(tiny, monkeypatch):
    config = tiny("method=supervised")
    folder = run(config).folder
    monkeypatch.setattr("kdx.engine.optim.update.Joint.__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(replace(config, fresh=True))
    assert not {p.name for p in folder.iterdir()} & {"DONE", "student.safetensors", "result.json"}


def test_how_often_one_looks_changes_nothing(tiny):
    often, seldom = (
        run(tiny("evals.test.every=0.2", "evals.fidelity.every=0.4", "trainer.log_steps=1")),
        run(tiny("evals.test.every=null", "trainer.log_steps=100")),
    )
    assert often.student.stat().st_size == seldom.student.stat().st_size
    a, b = (build_network(tiny().student.net, 0) for _ in range(2))
    load_weights(a, often.student)
    load_weights(b, seldom.student)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert often.data["metrics"]["last"] == seldom.data["metrics"]["last"]
    assert sum("test/top1" in line for line in record(often.folder)) == 8
    assert sum("test/top1" in line for line in record(seldom.folder)) == 1


def test_a_result_says_where_its_numbers_come_from(tiny):
    config = tiny("dataset.val_fraction=0.2", "seed=3", "teacher.seed=4")
    result = run(config)
    data = json.loads((result.folder / "result.json").read_text())
    assert (data["seed"], data["data_seed"], data["protocol"]) == (3, 3, "last")
    assert data["examples"] == {"training": 32, "test": 25, "val": 8, "train": 10}
    assert data["steps"] == 8 and data["epochs"] == 2.0
    assert data["identity"] == result.folder.name.rsplit("-", 1)[1] and data["name"] == name(config)
    assert data["parameters"] == sum(p.numel() for p in build_network(config.student.net, 0).parameters())
    assert data["device"]["type"] == "cpu" and data["device"]["threads"] == 1 and data["device"]["name"]
    assert data["versions"]["torch"] == torch.__version__.split("+")[0]
    assert set(data["code"]) == {"commit", "dirty"}
    # of the seconds before they are rounded to three digits; one digit of its own
    seconds, grain = data["seconds"], 0.0005
    assert 64 / (seconds + grain) - 0.05 <= data["examples_per_second"]
    assert seconds <= grain or data["examples_per_second"] <= 64 / (seconds - grain) + 0.05
    teacher = data["teacher"]
    assert teacher["sha256"] == hashlib.sha256(open(teacher["weights"], "rb").read()).hexdigest()
    assert 0 <= teacher["test/top1"] <= 1
    lines = [line for line in record(result.folder) if "test/top1" in line]
    metrics = data["metrics"]
    assert set(metrics) == {"last", "best_on_test", "val_selected"}
    assert metrics["last"].items() >= {k: v for k, v in lines[-1].items() if k.startswith("test/")}.items()
    assert metrics["best_on_test"]["test/top1"] == max(line["test/top1"] for line in lines)
    assert metrics["val_selected"]["val/top1"] == max(line["val/top1"] for line in lines)
    assert result.metric("test/top1") == lines[-1]["test/top1"] and result.metric("test/unknown") is None
    assert not (result.folder / "error.txt").exists()


def test_the_chosen_student_is_exported_beside_the_last(tiny):
    result = run(tiny("dataset.val_fraction=0.2", "method=supervised"))
    chosen = build_network(tiny().student.net, 0)
    metadata = load_weights(chosen, result.folder / "student_val.safetensors")
    assert json.loads(metadata["kdx"])["run"] == result.folder.name
    load_weights(build_network(tiny().student.net, 0), result.student)


def test_a_run_belongs_to_one_process(tiny):
    config = tiny("method=supervised")
    folder = run(config).folder
    (folder / "DONE").unlink()
    with locked(folder), pytest.raises(UserError, match="another process is training in .*; wait for it or stop it"):
        run(config)
    assert math.isfinite(run(config).metric("test/nll"))


def test_without_a_record_there_is_a_result(tiny):
    result = run(tiny("logger=none", "method=supervised"))
    assert result.metric("test/top1") is not None and not (result.folder / "metrics.jsonl").exists()
