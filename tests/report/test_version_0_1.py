"""A results folder of version 0.1: it is shown, its students teach, and its unfinished run is refused in one line.

The folder is written here as 0.1 wrote it: `config.yaml` in the names of that time, `result.json` with the entries of
that time, an empty `DONE`, and no record of data and code.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from door import command

from kdx.commands import status
from kdx.config.compose import compose
from kdx.models.small import MLP
from kdx.models.weights import save_weights
from kdx.report.collect import collect
from kdx.report.groups import group_runs
from kdx.runs.prepare import prepare
from kdx.runs.results import finished
from kdx.runs.run import run

CONFIG = (Path(__file__).parents[1] / "config" / "past" / "config.yaml").read_text()
NAME = "digits-dkd-mlp_30-from-mlp_400"


def of_0_1(folder: Path, seed: int, top1: float | None) -> Path:
    """Write a run of version 0.1; `top1` is None for an unfinished one."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(re.sub(r"^((?:data_)?seed:) .*$", rf"\1 {seed}", CONFIG, flags=re.M))
    record = [{"step": 10, "epoch": 0.1, "lr": 0.003, "train/loss": 2.0, "time/seconds": 0.8}]
    if top1 is None:
        (folder / "checkpoints").mkdir()
        torch.save({"identity": folder.name[-16:], "step": 10}, folder / "checkpoints" / "last.pt")
    else:
        record += [
            {"step": 20, "epoch": 0.2, "test/top1": top1, "test/nll": 1.0, "test/ece": 0.02, "time/seconds": 1.5}
        ]
        torch.manual_seed(seed)
        save_weights(folder / "student.safetensors", MLP([30, 30], 0.0, "relu", 10, (1, 8, 8)), {})
        (folder / "result.json").write_text(json.dumps(result(folder.name, seed, top1), indent=2) + "\n")
        (folder / "DONE").touch()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in record))
    (folder / ".lock").touch()
    return folder


def result(name: str, seed: int, top1: float) -> dict[str, Any]:
    measured = {"step": 20, "epoch": 0.2, "test/top1": top1, "test/nll": 1.0, "test/ece": 0.02}
    choices = {"dataset": "digits", "method": "dkd", "student": "mlp_30", "teacher": "mlp_400", "recipe": "digits"}
    return {
        "name": name,
        "identity": name[-16:],
        "choices": choices,
        "seed": seed,
        "data_seed": seed,
        "protocol": "last",
        "metrics": {"last": measured, "best_on_test": measured, "val_selected": None},
        "teacher": {"net": "mlp_400", "sha256": "5" * 64, "weights": "gone", "trained_by": None, "test/top1": 0.97},
        "examples": {"training": 1297, "test": 500, "train": 500},
        "steps": 20,
        "epochs": 0.2,
        "parameters": 3190,
        "seconds": 1.5,
        "milliseconds_per_step": 1.5,
        "examples_per_second": 640.0,
        "fused": 1,
        "processes": 1,
        "finished": "2026-11-24T03:04:05Z",
        "code": {"commit": "0123456789abcdef", "dirty": False},
        "versions": {"kdx": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "device": {"type": "cpu", "name": "A processor", "threads": 1},
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Two seeds that are finished and one that is not."""
    runs = tmp_path / "outputs" / "runs"
    for seed, top1 in ((0, 0.91), (1, 0.94)):
        of_0_1(runs / f"{NAME}-seed{seed}-{seed:016x}", seed, top1)
    of_0_1(runs / f"{NAME}-seed2-{2:016x}", 2, None)
    return runs


def test_status_report_and_compare_show_it(capsys, old: Path, tmp_path: Path):
    states = {entry.folder.name: entry.state for entry in status.survey(old)}
    assert [states[f"{NAME}-seed{seed}-{seed:016x}"] for seed in (0, 1)] == ["done", "done"]
    assert states[f"{NAME}-seed2-{2:016x}"] == "waiting"

    said = command(capsys, "report", str(old), f"to={tmp_path / 'page'}", "pictures=false")
    assert said.code == 0 and said.err == ["kdx: 2 runs in 1 groups, 1 unfinished left out"]
    (group,) = group_runs(collect([old]).runs).groups
    assert [run.result.metric("test/top1") for run in group.runs] == [0.91, 0.94]

    of_0_1(other := old.parent / "other" / f"{NAME}-seed0-{3:016x}", 0, 0.90)
    of_0_1(old.parent / "other" / f"{NAME}-seed1-{4:016x}", 1, 0.92)
    said = command(capsys, "compare", str(other.parent), str(old))
    # gains of 1 and 2 points
    assert said.code == 0 and "n = 2" in said.out and "1.50" in said.out


@pytest.mark.slow
def test_its_student_teaches_and_its_unfinished_run_is_not_resumed(capfd, old: Path):
    teacher = old / f"{NAME}-seed1-{1:016x}"
    unfinished = old / f"{NAME}-seed2-{2:016x}"
    place = [f"paths.outputs={old.parent}", "trainer.device=cpu", "trainer.threads=1", "logger=jsonl"]
    short = ["dataset=digits", "method=dkd", "student=mlp_30", "debug=fast", "trainer.duration.steps=2", "seed=2"]
    own = ["teacher=mlp_30", f"teacher.checkpoint={teacher}"]
    new = run(prepare(compose([*place, *short, *own])))
    assert new.data["teacher"]["weights"] == str(teacher / "student.safetensors")
    prefix = new.folder.name.rpartition("-")[0]
    unfinished.rename(left := old / f"{prefix}-{2:016x}")
    done = of_0_1(old / f"{prefix}-{5:016x}", 2, 0.9)
    capfd.readouterr()
    again = run(prepare(compose([*place, *short, *own, "method.terms.dkd.nontarget_weight=2"])))
    said = capfd.readouterr().err.splitlines()
    for named, rest in ((left, "unfinished"), (done, "trains again")):
        (line,) = [line for line in said if str(named) in line]
        assert "version 0.1" in line and rest in line and len(line.replace(str(named), "")) < 300
    assert finished(again.folder) is not None and not finished(left)
    assert (left / "checkpoints" / "last.pt").exists()  # and it stays as it is
