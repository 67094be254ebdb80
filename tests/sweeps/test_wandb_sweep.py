"""The sweep that W&B directs: its file, the command lines that agents make of it, and the W&B runs they get."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from door import SMALL
from traces import logged, record

from kdx.config.compose import compose
from kdx.config.layout import config_dir
from kdx.runs.prepare import examine

SWEEP = yaml.safe_load((config_dir() / "wandb_sweep.yaml").read_text())


def command(values: dict[str, object]) -> list[str]:
    """The command of an agent for values from its server, built by W&B's own code."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    parts = utils.create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    parts |= {"env": ["/usr/bin/env"], "program": [SWEEP["program"]]}
    words = []
    for chunk in utils.create_sweep_command(list(SWEEP["command"])):
        words += parts[chunk[2:-1]] if chunk.startswith("${") else [chunk]
    return words


def corner(end: str) -> dict[str, object]:
    """The lowest or the highest value of each parameter."""
    return {key: node["value"] if "value" in node else node[end] for key, node in SWEEP["parameters"].items()}


@pytest.mark.parametrize("end", ["min", "max"])
def test_what_an_agent_runs_is_a_command_of_ours(end: str):
    words = command(corner(end))
    assert words[:3] == ["/usr/bin/env", "kdx", "train"] and not any(w.startswith("-") for w in words)
    config = examine(compose(words[3:]))
    assert config.logger["mode"] == "online"  # offline, the server would wait for ever
    assert config.method["temperature"] == SWEEP["parameters"]["method.temperature"][end]
    # what it is chosen by is measured, and not on the test set
    split = config.evals["val"]["split"]
    assert config.dataset["val_fraction"] > 0 and SWEEP["metric"]["name"] == f"{split}/top1"


def test_values_of_all_kinds_arrive_as_they_are_meant():
    values = {"fresh": True, "optimizer.lr": 1e-05, "trainer.ema": "null", "teacher.seeds": [1, 2], "paths.data": "a b"}
    config = compose(command(values)[5:]).config
    found = [config["fresh"], config["optimizer"]["lr"], config["trainer"]["ema"], config["teacher"]["seeds"]]
    assert [*found, config["paths"]["data"]] == [True, 1e-05, None, [1, 2], "a b"]


def test_the_file_says_how_it_is_used():
    said = re.findall(r"wandb sweep (\S+)", (config_dir() / "wandb_sweep.yaml").read_text())
    assert said == ["configs/wandb_sweep.yaml"]
    assert {"program", "method", "metric", "parameters", "command"} <= SWEEP.keys()


@pytest.mark.slow
def test_an_agents_run_is_the_students_whether_it_trains_or_was_finished(tmp_path: Path):
    """Offline, with the environment that an agent gives: its run id belongs to the student, each time it asks."""

    def start(run_id: str, *more: str) -> None:
        words = [sys.executable, "-m", "kdx.cli", *command(corner("min"))[2:], *SMALL, "logger.mode=offline", *more]
        env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        env |= {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": run_id, "HOME": str(tmp_path)}
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (shlex.join(words), done.stderr)

    start("first", "logger=wandb", "dataset.val_fraction=0.4")
    (student,) = (tmp_path / "outputs" / "runs").iterdir()
    (teacher,) = (tmp_path / "outputs" / "teachers").iterdir()
    trained = record(student)
    assert not (teacher / "wandb").exists() and (teacher / "metrics.jsonl").exists()

    def shown(run_id: str) -> list[dict[str, float]]:
        assert [p.name.endswith(f"-{run_id}") for p in student.glob("wandb/offline-run-*")] == [True]
        return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in logged(student)]

    assert shown("first") == trained
    assert any("val/top1" in line for line in trained)
    start("second", "logger=wandb", "dataset.val_fraction=0.4")
    assert shown("second") == record(student) == trained
