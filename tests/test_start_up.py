"""Modules that a command imports at its start: each costs CPU time in every start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch._dynamo", "torchvision", "timm", "sympy", "matplotlib", "sklearn", "torch._inductor")
CIFAR_SHAPED = (
    "dataset=synthetic",
    "dataset.input_shape=[3,32,32]",
    "dataset.num_classes=100",
    "dataset.train_size=128",
    "dataset.test_size=64",
    "student=resnet8",
    "student.net.widths=[4,4,8,8]",
    "teacher=resnet8",
    "teacher.net.widths=[4,4,8,8]",
    "trainer.duration.epochs=null",
    "trainer.duration.steps=1",
    "trainer.threads=1",
    "trainer.device=cpu",
    "logger=jsonl",
    "method=kd",
)


def imported(*arguments: str, at: Path) -> tuple[set[str], str]:
    """Modules that are imported once a command has ended, and what it wrote to standard error."""
    program = (
        "import json, sys\nfrom kdx.cli import main\n_, path, *arguments = sys.argv\n"
        "try:\n    main(arguments)\nfinally:\n"
        "    open(path, 'w').write(json.dumps(sorted(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(at / "modules.json"), *arguments]
    said = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    return set(json.loads((at / "modules.json").read_text())), said.stderr


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_imports_nothing_heavy(tmp_path: Path, optimizer: str):
    modules, _ = imported("train", *CIFAR_SHAPED, f"optimizer={optimizer}", at=tmp_path)
    assert list((tmp_path / "outputs" / "runs").glob("*/DONE"))  # it did train, and its teacher before
    assert "torch" in modules and not modules & set(HEAVY)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["list", "methods"], ["list", "models"], ["study", "--help"]]
)
def test_help_and_lists_do_without_torch(tmp_path: Path, arguments: list[str]):
    modules, _ = imported(*arguments, at=tmp_path)
    assert not modules & {"torch", "numpy", "wandb", "pydantic", *HEAVY}


def test_help_imports_no_hydra(tmp_path: Path):
    modules, _ = imported("--help", at=tmp_path)
    assert not modules & {"hydra", "omegaconf", "yaml"}
