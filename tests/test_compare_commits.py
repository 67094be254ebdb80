"""`make compare` finds one bit, wherever it lies, and is silent where there is nothing to find."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))

import compare
import compare_runs
from compare_runs import difference, read_runs

ROOT = Path(__file__).resolve().parent.parent
LINES = [
    {"step": 1, "train/loss": 0.5, "time/seconds": 0.1},
    {"step": 2, "train/loss": 0.25, "time/seconds": 0.2},
    {"step": 3, "train/loss": 0.125, "test/top1": 0.75, "time/seconds": 0.3},
]
TENSORS = {
    "net.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "norm.num_batches_tracked": np.array(3),
    "none": np.zeros((0, 2), np.float32),
}
METRICS = {"last": {"test/top1": 0.75, "epoch": 3}, "val_selected": None}


def leave(outputs: Path, name: str = "runs/digits-kd-mlp-seed0-12ab", **changed: Any) -> Path:
    """Outputs with one more finished run; its directory is named as a run's is."""
    kept = {"lines": LINES, "tensors": TENSORS, "metrics": METRICS, "method": "kd", "seed": 0, **changed}
    folder = outputs / name
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept["lines"]))
    save_file(kept["tensors"], folder / "student.safetensors", {"kdx": name})
    result = {"choices": {"method": kept["method"]}, "seed": kept["seed"], "metrics": kept["metrics"]}
    (folder / "result.json").write_text(json.dumps(result))
    return outputs


def found(tmp_path: Path, **changed: Any) -> str | None:
    """The report on a run and on the same run with changes."""
    before, after = leave(tmp_path / "before"), leave(tmp_path / "after", **changed)
    return difference(read_runs(before), read_runs(after))


def next_float(value: float) -> float:
    return float(np.nextafter(value, np.inf))


def test_equal_runs_are_identical_whatever_their_names_and_times(tmp_path):
    later = [{**line, "time/seconds": 9.0} for line in LINES]
    assert found(tmp_path, name="runs/digits-kd-mlp-seed0-99ff", lines=later) is None


@pytest.mark.parametrize("bit", range(32))
def test_one_bit_of_a_tensor_is_reported_with_its_place(tmp_path, bit):
    weight = TENSORS["net.weight"].copy()
    weight.view(np.uint32)[1, 0] ^= np.uint32(1 << bit)
    said = found(tmp_path, tensors={**TENSORS, "net.weight": weight})
    assert said == (
        f"runs: method=kd seed=0: tensor net.weight[1, 0]: {np.float32(3)!r} -> {weight[1, 0]!r}, 1 of 6 numbers differ"
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"norm.num_batches_tracked": np.array(4)}, "tensor norm.num_batches_tracked[]: "),
        ({"net.weight": np.zeros((3, 2), np.float32)}, "tensor net.weight: ('float32', (2, 3)) -> ('float32', (3, 2))"),
        ({"net.weight": np.zeros((2, 3), np.float64)}, "tensor net.weight: ('float32', (2, 3)) -> ('float64', (2, 3))"),
        ({"net.bias": np.zeros(2)}, "tensor net.bias: absent -> ('float64', (2,))"),
    ],
)
def test_other_numbers_shapes_types_and_names_of_tensors_are_reported(tmp_path, changed, words):
    said = found(tmp_path, tensors=TENSORS | changed)
    assert said is not None and words in said


def test_zero_has_a_sign():
    assert compare_runs.tensor_difference({"a": np.zeros(1)}, {"a": -np.zeros(1)}) is not None
    assert compare_runs.first_difference({"a": 0.0}, {"a": -0.0}) == "a: 0.0 -> -0.0"


def test_the_last_bit_of_a_metric_is_reported_with_line_key_and_both_values(tmp_path):
    lines = [LINES[0], {**LINES[1], "train/loss": next_float(0.25)}, {**LINES[2], "test/top1": 0.5}]
    assert found(tmp_path, lines=lines) == "runs: method=kd seed=0: line 2, train/loss: 0.25 -> 0.25000000000000006"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (LINES[:-1], "number of lines: 3 -> 2"),
        (LINES[1:], "line 1, step: 1 -> 2"),
        ([*LINES, LINES[0]], "number of lines: 3 -> 4"),
        ([*LINES[:2], {"step": 3, "train/loss": 0.125}], "line 3, test/top1: 0.75 -> absent"),
        ([{**LINES[0], "train/lr": 1.0}, *LINES[1:]], "line 1, train/lr: absent -> 1.0"),
        ([{**LINES[0], "train/loss": None}, *LINES[1:]], "line 1, train/loss: 0.5 -> None"),
    ],
)
def test_lines_and_keys_that_are_missing_or_new_are_reported(tmp_path, lines, words):
    assert found(tmp_path, lines=lines) == f"runs: method=kd seed=0: {words}"


def test_the_results_metrics_are_compared(tmp_path):
    metrics = {**METRICS, "last": {"test/top1": next_float(0.75), "epoch": 3}}
    said = found(tmp_path, metrics=metrics)
    assert said == "runs: method=kd seed=0: result, last/test/top1: 0.75 -> 0.7500000000000001"


def test_runs_are_paired_by_place_method_seed_and_order(tmp_path):
    first, second = [LINES[0]], [LINES[1]]
    for side, names in {"before": "ba", "after": "ab"}.items():
        outputs = leave(tmp_path / side, "teachers/t-7", method="supervised")
        for name, lines in zip(names, (first, second), strict=True):  # whatever the order of their names
            leave(outputs, f"runs/{name}", lines=lines)
    before, after = (read_runs(tmp_path / side) for side in ("before", "after"))
    assert list(before) == ["teachers: method=supervised seed=0", "runs: method=kd seed=0", "runs: method=kd seed=0 #2"]
    assert difference(before, after) is None
    leave(tmp_path / "after", "runs/c", method="dkd")
    assert difference(before, read_runs(tmp_path / "after")) == "runs: method=dkd seed=0: only after"
    del after["runs: method=kd seed=0 #2"]
    assert difference(before, after) == "runs: method=kd seed=0 #2: only before"


def test_nothing_to_compare_is_not_identical(tmp_path):
    assert difference(read_runs(tmp_path), read_runs(tmp_path)) == "no run is found on either side"


def test_a_base_gets_the_names_that_it_used():
    renames = [compare.Rename("steps", "iterations", "x"), compare.Rename("log_steps", "log_iterations_of", "y")]
    side = compare.Side("", ROOT, ROOT, renames)
    assert side.told("['log_steps=1','duration.steps=2']") == "['log_iterations_of=1','duration.iterations=2']"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """HEAD in a folder of its own, with the script as it is here."""
    git("rev-parse", "HEAD")
    git("worktree", "add", "--detach", str(tmp_path / "checkout"), "HEAD")
    try:
        for script in ("compare.py", "compare_runs.py"):
            (tmp_path / "checkout" / "scripts" / script).write_text((ROOT / "scripts" / script).read_text())
        yield tmp_path / "checkout"
    finally:
        git("worktree", "remove", "--force", str(tmp_path / "checkout"))


@pytest.mark.slow
def test_a_checkout_is_identical_to_its_commit_until_something_changes(checkout: Path):
    worktrees = git("worktree", "list")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(checkout / "scripts" / "compare.py"), "HEAD", "--set", "dkd"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    same = run()
    assert same.returncode == 0, same.stdout + same.stderr
    assert same.stdout.startswith("dkd        identical: 2 runs, 100 lines, ")

    recipe = checkout / "configs" / "method" / "dkd.yaml"
    changed = recipe.read_text().replace("nontarget_weight: 8.0", "nontarget_weight: 8.001")
    assert changed != recipe.read_text()
    recipe.write_text(changed)
    other = run()
    assert other.returncode == 1, other.stdout + other.stderr
    assert other.stdout.startswith("dkd        DIFFERS: runs: method=dkd seed=0: line 1, train/terms/dkd: ")
    assert git("worktree", "list") == worktrees  # each checkout of the base is removed again
