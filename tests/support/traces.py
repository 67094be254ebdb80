"""The files of a run without times, for comparisons of two runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMES = {"seconds", "examples_per_second", "milliseconds_per_step", "finished", "code"}


def record(folder: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl` without their times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def outcome(folder: Path) -> dict[str, Any]:
    """All of a finished run that another run of the same config must repeat to the bit."""
    result = json.loads((folder / "result.json").read_text())
    result = {key: value for key, value in result.items() if key not in TIMES}
    if result["teacher"] is not None:
        del result["teacher"]["weights"]
    weights = {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
    assert "student.safetensors" in weights and (folder / "DONE").exists()
    return {"lines": record(folder), "weights": weights, **result}


def logged(folder: Path) -> list[dict[str, float]]:
    """The history of a run's offline W&B run, read from its file by W&B itself."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in told.splitlines()]
    items = [r["history"]["item"] for r in records if r["type"] == "history"]
    return [{key: value for key, value in item.items() if not key.startswith("_")} for item in items]
