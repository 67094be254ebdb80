"""The template of a user's own package, `tests/plugin`, trains as its README says, without a fork."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deaths import Moment, kill_at
from safetensors.torch import load_file
from traces import outcome

from kdx.config.compose import compose
from kdx.config.layout import OWN, add_config_dir
from kdx.config.schema import RunConfig
from kdx.models.tap import plain
from kdx.runs.build import build_student
from kdx.runs.prepare import prepare
from kdx.runs.run import run

PLUGIN = Path(__file__).parent / "plugin"
SHORT = (
    "trainer.duration.steps=8",
    "trainer.batch_size=50",
    "trainer.checkpoint_seconds=0",
    "trainer.device=cpu",
    "logger=jsonl",
)


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OWN, "")
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN), prepend=":")
    monkeypatch.syspath_prepend(PLUGIN)
    add_config_dir(str(PLUGIN / "configs"))


def config(outputs: Path, *overrides: str) -> RunConfig:
    return prepare(compose(["dataset=bars", "method=logit_cosine", *SHORT, f"paths.outputs={outputs}", *overrides]))


@pytest.mark.parametrize("in_memory", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_it_trains_resumes_exports_and_loads_into_the_plain_module(tmp_path: Path, in_memory: str):
    from my_parts.data import Bars
    from my_parts.network import PlainCNN

    own = f"dataset.in_memory={in_memory}"
    whole = run(config(tmp_path / "whole", own))
    killed = config(tmp_path / "killed", own)
    assert kill_at(killed, Moment("kdx.engine.checkpoint.Checkpoints", "save", 5)) == -9
    again = run(killed)
    assert outcome(again.folder) == outcome(whole.folder)

    module = PlainCNN(width=8, num_classes=3, in_channels=1)
    module.load_state_dict(load_file(whole.student))  # strict: the names are the module's own
    network = build_student(killed, whole.student)
    inputs = torch.stack([Bars(20, 1)[i][0] for i in range(20)])
    assert isinstance(plain(network), PlainCNN)
    assert torch.equal(network.eval()(inputs).logits, module.eval()(inputs))


def test_what_the_command_line_says_of_the_data_reaches_the_teachers_training(tmp_path: Path):
    told = config(tmp_path, "dataset.train.size=30", "dataset.val_fraction=0.2")
    assert told.teacher.training.dataset["train"] == told.dataset["train"]
    facts = ("own", "dataset.name=mine", "dataset.num_classes=3", "dataset.input_shape=[1,8,8]")
    parts = [f"++dataset.{s}.{k}={v}" for s in ("train", "test") for k, v in (("size", 9), ("seed", 0))]
    targets = [f"dataset.{s}._target_=my_parts.data.Bars" for s in ("train", "test")]
    without_files = prepare(compose([f"dataset={facts[0]}", *facts[1:], *targets, *parts, f"paths.outputs={tmp_path}"]))
    assert without_files.teacher.training.dataset["test"] == without_files.dataset["test"]
    assert without_files.dataset["train"]["size"] == 9


def test_a_feature_loss_reads_the_stages_that_are_found(tmp_path: Path):
    hint = ("method=fitnet", "method.terms.hint.student_role=pooled", "method.terms.hint.teacher_role=pooled")
    result = run(config(tmp_path, *hint, "trainer.duration.steps=2"))
    assert (result.folder / "DONE").exists()


def test_the_readmes_command_runs(tmp_path: Path):
    (command,) = (line.strip() for line in (PLUGIN / "README.md").read_text().splitlines() if "kdx train" in line)
    before, _, arguments = command.partition("kdx train ")
    assert before == "PYTHONPATH=tests/plugin "
    done = subprocess.run(
        [sys.executable, "-m", "kdx.cli", "train", *arguments.split(), *SHORT, f"paths.outputs={tmp_path}"],
        cwd=PLUGIN.parents[1],
        env={"PYTHONPATH": f"{PLUGIN}:{PLUGIN.parents[1]}", "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "top-1" in done.stdout
