"""Runs on hidden tokens from start to end, alone, accumulated and in two processes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MASKED
from crowd import trained_by
from safetensors.torch import load_file
from traces import record

from kdx.config.schema import RunConfig
from kdx.runs.run import name, run

# without dropout, whose draws differ between processes and parts; batches of 7 are shared as 4 and 3
RECIPE = "teacher.recipe=['method=masked_lm','trainer.batch_size=8']"
STILL = ("student.net.dropout=0", "teacher.net.dropout=0", "trainer.precision=fp32", RECIPE)
SHORT = ("trainer.batch_size=7", "trainer.log_steps=1", "method=distilbert", "dataset.val_fraction=0.2", *STILL)


def folder_of(config: RunConfig) -> Path:
    return Path(config.paths.runs) / name(config)


def assert_same(config: RunConfig, other: RunConfig) -> None:
    for mine, theirs in zip(record(folder_of(config)), record(folder_of(other)), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)  # sums in another order, by way of AdamW
    ours, there = (load_file(folder_of(each) / "student.safetensors") for each in (config, other))
    assert ours.keys() == there.keys()
    assert max(float((ours[key] - there[key]).abs().max()) for key in ours) < 1e-4


@pytest.mark.slow
def test_two_processes_and_parts_of_batches_leave_the_trace_of_one(tiny, tmp_path: Path):
    config = tiny(*SHORT, data=MASKED)
    result = run(config)
    last = result.data["metrics"]["last"]
    assert {"test/perplexity", "test/token_accuracy", "val/perplexity", "fidelity/test/kl"} <= last.keys()
    assert result.data["task"]["primary"] == "perplexity"
    elsewhere = replace(config, paths=replace(config.paths, runs=str(tmp_path / "two")))
    assert trained_by(2, [elsewhere]) == [0, 0]
    assert_same(config, elsewhere)
    parts = tiny(*SHORT, "update.accumulate=3", data=MASKED)
    run(parts)
    assert_same(config, parts)
    assert json.loads((folder_of(elsewhere) / "result.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_two_stages_of_tinybert_are_two_ordinary_runs(tiny):
    from conftest import PHRASES

    first = run(tiny("method=tinybert_intermediate", data=PHRASES))
    projected = [key for key in load_file(first.folder / "student.safetensors") if "project" in key]
    assert not projected
    config = tiny("method=tinybert", f"student.checkpoint='{first.folder}'", data=PHRASES)
    second = run(config)
    assert second.data["metrics"]["last"]["test/top1"] >= 0
    assert config.student.sha256 is not None
