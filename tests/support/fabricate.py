"""Directories of finished runs that nobody ran, for what only reads them."""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kdx.config.schema import RunConfig


def fabricate(
    folder: Path,
    config: Mapping[str, Any] | RunConfig,
    values: Mapping[str, float],
    *,
    lines: list[dict[str, float | None]] | None = None,
    teacher: str | None = None,
    text: str | None = None,
) -> Path:
    """Write a run's directory.

    Args:
        folder: The directory.
        config: What it claims to have run.
        values: Its metrics at the end.
        lines: Lines of its record.
        teacher: Name of the run that it claims to have learnt from.
        text: The config as YAML, where it was made already.
    """
    folder.mkdir(parents=True)
    config = _plain(config)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)) if text is None else text)
    result = {
        "name": folder.name,
        "identity": folder.name[-16:],
        "choices": config["choices"],
        "seed": config["seed"],
        "protocol": "last",
        "metrics": {"last": {**values, "epoch": 3.0}, "best_on_test": {**values, "epoch": 2.0}, "val_selected": None},
        "teacher": None
        if config["teacher"] is None
        else {"net": "resnet8", "sha256": "5" * 64, "weights": "gone", "trained_by": teacher, "test/top1": 0.9},
        "examples": {"training": 40, "test": 25},
        "steps": 8,
        "epochs": 3.0,
        "parameters": 1234,
        "seconds": 2.5,
        "milliseconds_per_step": 1.5,
        "examples_per_second": 640.0,
        "finished": "2026-01-02T03:04:05Z",
        "code": {"commit": "0123456789abcdef", "dirty": False},
        "versions": {"torch": "2.13.0", "python": "3.11.7"},
        "device": {"type": "cpu", "name": "A processor", "threads": 1},
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines or []))
    (folder / "DONE").touch()
    return folder


def _plain(config: Mapping[str, Any] | RunConfig) -> dict[str, Any]:
    return config.plain() if isinstance(config, RunConfig) else dict(config)


def changed(config: Mapping[str, Any] | RunConfig, **values: Any) -> dict[str, Any]:
    """A copy with other values, named by paths with "__" for dots."""
    copy = deepcopy(_plain(config))
    for path, value in values.items():
        *parents, last = path.split("__")
        node = copy
        for name in parents:
            node = node[name]
        assert last in node, path
        node[last] = value
    return copy


def point(text: str, seed: int, temperature: float, lr: float) -> tuple[str, float]:
    """A config as YAML with other values, and an accuracy that depends on them, best at a temperature of 4."""
    accuracy = 0.9 - abs(temperature - 4) / 100 - lr + 0.003 * ((seed * 7) % 5 - 2)
    text = re.sub(r"^((?:data_)?seed:) .*$", rf"\1 {seed}", text, flags=re.M)
    text = re.sub(r"^(  (?:    )?temperature:) .*$", rf"\1 {temperature}", text, flags=re.M)
    return re.sub(r"^(  lr:) .*$", rf"\1 {lr}", text, flags=re.M), accuracy


def sweep_of_many(root: Path, config: Mapping[str, Any] | RunConfig, temperatures: list[float], seeds: int) -> int:
    """A sweep of temperature and learning rate, with seeds, records and all; returns the number of runs."""
    text = OmegaConf.to_yaml(OmegaConf.create(_plain(config)))
    count = 0
    for temperature in temperatures:
        for lr in (0.01, 0.02, 0.05, 0.1):
            for seed in range(seeds):
                own, accuracy = point(text, seed, temperature, lr)
                values = {"test/top1": accuracy, "test/nll": 1.0, "fidelity/test/agreement": accuracy - 0.05}
                lines = []
                for epoch in range(1, 241):
                    lines.append({"step": 10 * epoch - 5, "epoch": epoch - 0.5, "train/loss": 3 / epoch})
                    lines.append({"step": 10 * epoch, "epoch": float(epoch), "test/top1": accuracy, "test/nll": 1.0})
                fabricate(
                    root / f"run-seed{seed}-{count:016x}", changed(config, seed=seed), values, lines=lines, text=own
                )
                count += 1
    return count
