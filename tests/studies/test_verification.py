"""A table's runs trained again from its manifest: the same bits, another number, or another config."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, STUDENT, TINY
from door import command
from study_options import study_options

from kdx.core.errors import DamagedError, UserError
from kdx.runs.results import Result
from kdx.studies.grid import Grid
from kdx.studies.verification import Request, compared, edited, manifest_path, one_run, repeat, sample
from kdx.tables.manifest import read_manifest

BASE = [*CLASSES, *TINY, *STUDENT, "evals.test.every=null"]


def paths(folder: Path) -> dict[str, str]:
    return {"data": str(folder), "outputs": str(folder)} | {k: f"{folder}/{k}" for k in ("runs", "teachers", "memos")}


def grid(**changed: Any) -> Grid:
    settings: dict[str, Any] = {
        "name": "tiny",
        "title": "A tiny study",
        "overrides": BASE,
        "seeds": [0, 1],
        "seed_overrides": ["seed={seed}"],
        "rows": {"alone": ["method=supervised"]},
        "baseline": None,
        "cost_row": None,
        "teacher_row": False,
        "columns": ["test/top1", "test/nll"],
        "protocol": "last",
    }
    return Grid(**settings | changed)


def asked(table: Path, **changed: Any) -> Request:
    plain = {"cells": None, "seed": 0, "jobs": 1, "files": None, "overrides": []}
    return Request(**{"table": str(table), **plain} | changed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two runs, without the runs themselves."""
    folder = tmp_path_factory.mktemp("made")
    assert grid().execute(paths(folder), study_options()) == []
    shutil.rmtree(folder / "runs")
    return folder / "studies" / "tiny"


def test_a_manifest_names_each_run_and_no_place(made: Path):
    text = (made / "table.manifest.json").read_text()
    manifest = read_manifest(made / "table.manifest.json")
    assert manifest.text() == text and str(made.parent.parent) not in text
    assert [(run.label, run.row, run.seed) for run in manifest.runs] == [
        ("alone, seed 0", "alone", 0),
        ("alone, seed 1", "alone", 1),
    ]
    # the file has a line for each run, so that a change of one is a change of one line
    assert sum('"identity"' in line for line in text.splitlines()) == 2
    assert {"md", "csv"} == set(manifest.files) and edited(manifest, made / "table.manifest.json") == []


def test_runs_trained_again_have_the_same_bits(made: Path, tmp_path: Path):
    manifest = read_manifest(manifest_path(str(made)))
    outcomes = repeat(manifest, manifest.runs, paths(tmp_path), asked(made))
    assert [(of.verdict, of.value == of.again) for of in outcomes] == [("same bits", True)] * 2
    assert len(list((tmp_path / "runs").glob("*/DONE"))) == 2  # they were trained, not looked up


def test_another_number_is_judged_by_the_interval_of_one_run(made: Path, tmp_path: Path):
    manifest = read_manifest(manifest_path(str(made)))
    values = {"alone, seed 0": 0.40, "alone, seed 1": 0.44}
    runs = [replace(run, student="0" * 64, metrics={"test/top1": values[run.label]}) for run in manifest.runs]
    manifest = replace(manifest, runs=runs, grain=0.01)
    low, high = one_run([0.40, 0.44], 0.01)  # 0.42 ± 12.706 * 0.0283 * sqrt(1.5)
    assert (low, high) == pytest.approx((0.42 - 0.44025, 0.42 + 0.44025), abs=1e-4)
    for again, verdict in ((high - 1e-6, "within the interval"), (high + 1e-6, "different")):
        data = {"metrics": {"last": {"test/top1": again}}, "code": {"commit": None, "dirty": None}}
        data |= {"versions": {"torch": "2"}, "device": {"name": "a CPU", "threads": 1}}
        assert compared(manifest, manifest.runs[0], Result(tmp_path, data)).verdict == verdict


def test_the_interval_of_one_run_holds_19_of_20_further_runs():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        *seen, further = rng.normal(0.7, 0.003, 4).tolist()
        low, high = one_run(seen, 0.0)
        inside += low <= further <= high
    assert 0.935 < inside / 2000 < 0.965  # 95 % within three standard errors
    assert all(np.isnan(one_run([0.7], 0.1)))


def test_another_config_is_different_and_nothing_trains(made: Path, tmp_path: Path):
    manifest = read_manifest(manifest_path(str(made)))
    runs = [replace(run, overrides=(*run.overrides, "optimizer.lr=0.02")) for run in manifest.runs]
    outcomes = repeat(replace(manifest, runs=runs), runs, paths(tmp_path), asked(made))
    assert {of.verdict for of in outcomes} == {"different"} and "its config changed" in outcomes[0].why
    assert not (tmp_path / "runs").exists()


def test_an_edited_table_is_named(made: Path, tmp_path: Path):
    for file in made.iterdir():
        shutil.copyfile(file, tmp_path / file.name.replace("table", "digits"))
    path = manifest_path(str(tmp_path / "digits.md"))
    assert edited(read_manifest(path), path) == []
    text = (tmp_path / "digits.md").read_text()
    (tmp_path / "digits.md").write_text(text.replace("| alone |", "| alone, better |"))
    assert edited(read_manifest(path), path) == ["digits.md"]


def test_a_sample_is_drawn_by_its_seed(made: Path):
    manifest = read_manifest(manifest_path(str(made)))
    runs = [replace(manifest.runs[0], label=str(i)) for i in range(100)]
    many = replace(manifest, runs=runs)
    drawn = [[run.label for run in sample(many, 3, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 3
    assert sample(many, None, 0) == runs == sample(many, 200, 0)


def test_a_table_without_a_manifest_needs_a_rerun(tmp_path: Path, made: Path, capsys):
    (tmp_path / "old.md").write_text("| a |")
    with pytest.raises(UserError, match=r"old has no old\.manifest\.json, so it needs a rerun"):
        manifest_path(str(tmp_path / "old"))
    with pytest.raises(UserError, match="there is no such table"):
        manifest_path(str(tmp_path / "new"))
    said = command(capsys, "verify", str(tmp_path / "old.md"))
    assert said.code == 2 and len(said.err) == 1 and "needs a rerun" in said.err[0]
    damaged = tmp_path / "old.manifest.json"
    damaged.write_text((made / "table.manifest.json").read_text()[:-40])
    with pytest.raises(DamagedError, match="is damaged"):
        read_manifest(damaged)


def test_the_command_reports_and_clears_up(made: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = command(capsys, "verify", f"{made}/table.md", "cells=1")
    assert said.code == 0 and "tiny: 1 of 2 runs again, drawn with seed 0" in said.out
    assert "1 same bits" in said.out and not list(tmp_path.glob("outputs/verify/*"))
    bad = command(capsys, "verify", f"{made}/table.md", 'overrides=["optimizer.lr=1"]')
    assert bad.code == 1 and "optimizer.lr=1 changes the run" in bad.err[0]


@pytest.mark.slow
def test_a_file_that_runs_start_from_is_found_by_its_checksum(tmp_path: Path):
    first = tmp_path / "first"
    assert grid(seeds=[0]).execute(paths(first), study_options()) == []
    (weights,) = first.glob("runs/*/student.safetensors")
    given = tmp_path / "given" / "start.safetensors"
    given.parent.mkdir()
    shutil.copyfile(weights, given)
    asking = study_options(overrides=[f"student.checkpoint={given}"])
    second = tmp_path / "second"
    assert grid(seeds=[0]).execute(paths(second), asking) == []
    path = second / "studies" / "tiny" / "table.manifest.json"
    assert str(tmp_path) not in path.read_text() and "{file:start.safetensors:" in path.read_text()
    manifest = read_manifest(path)
    with pytest.raises(UserError, match=r"start from start\.safetensors .*files=FOLDER"):
        repeat(manifest, manifest.runs, paths(tmp_path / "third"), asked(path))
    found = repeat(manifest, manifest.runs, paths(tmp_path / "third"), asked(path, files=str(given.parent)))
    assert [of.verdict for of in found] == ["same bits"]
    assert json.loads(path.read_text())["version"] == 1
