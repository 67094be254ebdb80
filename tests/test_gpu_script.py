"""The programme for a GPU: it goes on after a failure, stops what runs too long, and writes after each step."""

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_script", ROOT / "scripts" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_script"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def python(text: str):
    return lambda out, seconds: [sys.executable, "-c", text.format(out=out)]


SLOW = """
import json, time
with open('{out}/slow.jsonl', 'w') as file:
    print(json.dumps(dict(a=1)), file=file)
    file.write('{{"half": ')
    file.flush()
    time.sleep(900)
"""


def test_a_failed_step_and_a_slow_one_stop_no_other(script: ModuleType, tmp_path: Path, monkeypatch, capsys):
    written: list[list[str]] = []

    def kept(facts, out: Path) -> None:
        real(facts, out)
        written.append([step["name"] for step in json.loads((out / "gpu.json").read_text())["steps"]])

    real = script.write
    monkeypatch.setattr(script, "write", kept)
    steps = [
        script.Step("first", 0.2, python("raise SystemExit(3)"), lambda out: script.lines(out / "first.jsonl")),
        script.Step("slow", 0.15, python(SLOW), lambda out: script.lines(out / "slow.jsonl")),
        script.Step("lost", 0.1, python("pass"), lambda out: (out / "nothing").read_text().splitlines()),
        script.Step("last", 0.55, python("open('{out}/x', 'w').write('5')"), lambda out: [(out / "x").read_text()]),
    ]
    monkeypatch.setattr(script, "steps", lambda arguments: steps)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), "--minutes", "0.5", "--rehearse"])
    began = time.monotonic()
    script.main()
    assert time.monotonic() - began < 300  # far from the sleep of the slow step
    found = {step["name"]: step for step in json.loads((tmp_path / "gpu.json").read_text())["steps"]}
    assert found["first"]["status"] == "failed with exit status 3, see first.txt"
    # the whole lines of a step that ran out of time count
    assert found["slow"]["status"] == "out of time" and found["slow"]["results"] == [{"a": 1}]
    assert "no results" in found["lost"]["status"] and found["last"]["results"] == ["5"]
    assert written == [["first"], ["first", "slow"], ["first", "slow", "lost"], ["first", "slow", "lost", "last"]]
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("# First use of a GPU: a rehearsal on ") and "## slow: out of time" in text


def test_a_table_has_the_keys_of_all_rows(script: ModuleType):
    assert script.table([{"a": 1.23456, "b": None}, {"a": 2, "c": "x|y"}]) == [
        "| a | b | c |",
        "| -- | -- | -- |",
        "| 1.235 | - | - |",
        "| 2 | - | x/y |",
    ]


def test_without_a_gpu_only_a_rehearsal_runs(script: ModuleType, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(script.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        script.main()
    assert "this machine has no GPU; --rehearse" in capsys.readouterr().err
