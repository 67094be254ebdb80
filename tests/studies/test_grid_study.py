"""A study of rows and seeds: its runs, its table, and the same command again."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, STUDENT, TINY
from study_options import study_options

from kdx.core.errors import UserError
from kdx.runs.results import Result
from kdx.studies.grid import Grid
from kdx.studies.options import Options
from kdx.tables.statistics import Summary, compare
from kdx.tables.table import Table


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_summary_is_numpys(n: int):
    values, baseline = np.random.default_rng(n).normal(0.7, 0.01, (2, n))
    summary = Summary.of(values.tolist())
    gain = compare(dict(enumerate(values.tolist())), dict(enumerate(baseline.tolist()))).gain
    assert (summary.mean, summary.std, summary.n) == (
        pytest.approx(values.mean()),
        pytest.approx(values.std(ddof=1)),
        n,
    )
    assert gain.mean == pytest.approx((values - baseline).mean())
    assert gain.std == pytest.approx((values - baseline).std(ddof=1))


def test_one_number_has_no_spread_and_none_no_mean():
    assert math.isnan(Summary.of([0.5]).std) and Summary.of([0.5]).show(100, 2) == "50.00"
    assert Summary.of([0.9696, 0.9718]).show(100, 2) == "97.07 ± 0.16"
    # two digits of the spread
    assert Summary.of([0.5, 0.7, 0.62]).show(100, 2) == "61 ± 10"
    with pytest.raises(ValueError, match="at least one"):
        Summary.of([])


def result(seed: int, **metrics: float) -> Result:
    data = {
        "seed": seed,
        "metrics": {"last": metrics, "best_on_test": {"test/top1": 1.0}, "val_selected": None},
        "examples": {"training": 100, "test": 50},
        "steps": 10,
        "seconds": 2.0,
        "milliseconds_per_step": 4.0,
        "device": {"name": "a CPU", "threads": 1},
        "code": {"commit": None, "dirty": None},
        "versions": {"torch": "2"},
        "teacher": {"sha256": "1", "test/top1": 0.9},
    }
    return Result(Path("/nowhere"), data)


def build(rows: dict[str, list[Result]], columns: list[str], **changed) -> Table:
    settings = {
        "title": "A table",
        "results": {row: {run.data["seed"]: run for run in runs} for row, runs in rows.items()},
        "columns": columns,
        "protocol": "last",
        "baseline": None,
        "cost_row": None,
        "teacher_row": False,
        "wanted": 3,
        "missing": [],
        "varied": ["seed"],
    }
    return Table.build(**settings | changed)


def test_a_hole_is_a_dash_and_n_is_shown():
    rows = {
        "KD": [result(s, **{"test/top1": 0.7 + s / 100, "test/nll": 1.0}) for s in range(3)],
        "alone": [result(s, **{"test/top1": 0.6}) for s in range(3)],
    }
    columns = ["test/top1", "test/nll"]
    table = build(rows, columns, baseline="alone", teacher_row=True)
    assert table.rows() == [
        ["teacher", "90.00", "-", "1"],
        ["KD", "71.0 ± 1.0", "1.0000 ± 0.0000", "3"],
        ["alone", "60.00 ± 0.00", "-", "3"],
    ]
    assert table.header() == ["", "top-1 % ↑ ± sd", "NLL ↓ ± sd", "n"]
    assert table.gains["KD"].gain.mean == pytest.approx(0.11) and "alone" not in table.gains
    assert "| alone | 60.00 ± 0.00 | - | 3 |" in table.markdown()
    cells = list(csv.DictReader(io.StringIO(table.csv())))
    assert len(cells) == 5  # a hole has no line, a gain has one
    kd = next(c for c in cells if (c["row"], c["metric"]) == ("KD", "test/top1"))
    assert float(kd["mean"]) == pytest.approx(0.71) and float(kd["std"]) == pytest.approx(0.01) and kd["n"] == "3"
    assert kd["seeds"] == "0 1 2" and [float(v) for v in kd["values"].split()] == pytest.approx([0.70, 0.71, 0.72])
    gain = next(c for c in cells if c["metric"] == "gain")
    low, high = table.gains["KD"].interval
    assert (float(gain["low"]), float(gain["high"])) == (low, high) and gain["low_with_examples"] == ""
    best = build(rows, columns, baseline="alone", teacher_row=True, protocol="best_on_test")
    assert best.rows()[1][1] == "100.00 ± 0.00" and any("optimistic" in note for note in best.notes)


def test_there_is_no_row_of_teachers_where_no_run_has_one():
    runs = [result(s, **{"test/top1": 0.6}) for s in range(3)]
    alone = [Result(run.folder, {**run.data, "teacher": None}) for run in runs]
    assert build({"CE": alone}, ["test/top1"], teacher_row=True).rows() == [["CE", "60.00 ± 0.00", "3"]]


def test_a_row_may_show_what_its_teachers_measure():
    runs = [result(s, **{"test/top1": 0.6}) for s in range(3)]
    taught = [taught_by(run, f"t{s}", 0.8 + 0.01 * s) for s, run in enumerate(runs)]
    alone = [Result(r.folder, {**r.data, "teacher": None}) for r in runs]
    table = build({"KD": taught, "CE": alone}, ["test/top1", "teacher/test/top1", "teacher/test/nll"])
    assert table.rows() == [["KD", "60.00 ± 0.00", "81.0 ± 1.0", "-", "3"], ["CE", "60.00 ± 0.00", "-", "-", "3"]]


def taught_by(run: Result, sha: str, top1: float) -> Result:
    return Result(run.folder, {**run.data, "teacher": {"sha256": sha, "test/top1": top1}})


def test_two_kinds_of_teacher_are_two_rows_and_not_one_of_six():
    runs = [result(s, **{"test/top1": 0.6}) for s in range(3)]
    rows = {
        "all data": [taught_by(run, f"all{s}", 0.9) for s, run in enumerate(runs)],
        "half": [taught_by(run, f"half{s}", 0.7) for s, run in enumerate(runs)],
        "half, two seeds": [taught_by(run, f"half{s}", 0.7) for s, run in enumerate(runs[:2])],
    }
    table = build(rows, ["test/top1"], teacher_row=True)
    assert [row for row in table.cells if row.startswith("teacher")] == ["teacher", "teacher of half, half, two seeds"]
    assert table.n["teacher"] == 3 and table.cells["teacher"]["test/top1"].mean == pytest.approx(0.9)


def test_one_teacher_of_three_students_has_no_spread():
    taught = [taught_by(result(s, **{"test/top1": 0.6}), "same", 0.9) for s in range(3)]
    table = build({"KD": taught}, ["test/top1", "teacher/test/top1"])
    assert table.cells["KD"]["teacher/test/top1"].n == 1 and table.rows() == [["KD", "60.00 ± 0.00", "90.00", "3"]]


def test_the_notes_say_what_n_counts():
    runs = [result(s, **{"test/top1": 0.6}) for s in range(3)]
    one = build({"KD": [taught_by(run, "same", 0.9) for run in runs]}, ["test/top1"])
    each = build({"KD": [taught_by(run, f"t{s}", 0.9) for s, run in enumerate(runs)]}, ["test/top1"])
    none = build({"CE": [Result(run.folder, {**run.data, "teacher": None}) for run in runs]}, ["test/top1"])
    for table, said in ((one, "with one teacher"), (each, "seeds of teacher and student"), (none, "of the student (")):
        assert any(said in note for note in table.notes if note.startswith("n counts")), said


def test_a_gain_may_be_a_column_of_its_own():
    rows = {
        "alone": [result(s, **{"test/top1": 0.6 + s / 100}) for s in range(3)],
        "KD": [result(s, **{"test/top1": 0.65 + 2 * s / 100}) for s in range(3)],
    }
    table = build(rows, ["test/top1", "gain"], baseline="alone")
    # differences seed by seed .05, .06, .07: half an interval is 4.303 * .01 / sqrt(3)
    half = 4.30265 / math.sqrt(3)
    assert table.header() == ["", "top-1 % ↑ ± sd", "difference to alone [95 % over seeds]", "n"]
    (_, kd) = table.rows()
    assert kd == ["KD", "67.0 ± 2.0", f"+6.00 [{6 - half:+.2f}, {6 + half:+.2f}] *", "3"]
    assert not any("KD against" in note for note in table.notes)
    assert any("1 comparison, judged over seeds alone: 1 differs" in note for note in table.notes)


def test_a_failed_seed_leaves_the_row_and_the_gains_and_is_reported():
    rows = {
        "alone": [result(s, **{"test/top1": 0.6 + s / 100}) for s in range(1, 4)],
        "KD": [result(s, **{"test/top1": 0.65 + 2 * s / 100}) for s in range(4)],
        "DKD": [],
    }
    told = ["alone, seed 0: the disk is full", "DKD, seed 0: not run"]
    table = build(rows, ["test/top1", "gain"], baseline="alone", wanted=4, missing=told)
    counts = {row[0]: row[-1] for row in table.rows()}
    assert counts == {"alone": "3 of 4", "KD": "4", "DKD": "0 of 4"}
    assert table.gains["KD"].seeds == (1, 2, 3)
    assert "- missing: alone, seed 0: the disk is full\n" in table.markdown()
    assert "| DKD | - | - | 0 of 4 |" in table.markdown()


def test_no_number_of_a_table_is_minus_zero_or_above_a_hundred_percent():
    rows = {
        "alone": [result(s, **{"test/top1": 0.98 + 0.02 * (s == 1)}) for s in range(3)],
        "KD": [result(s, **{"test/top1": 0.98 + 0.02 * (s == 1) - 1e-9}) for s in range(3)],
    }
    table = build(rows, ["test/top1", "gain"], baseline="alone")
    assert "-0.00" not in table.text() and "+0.00 " not in table.text()
    highs = [float(cell["high"]) for cell in csv.DictReader(io.StringIO(table.csv())) if cell["metric"] != "gain"]
    assert highs and max(highs) == 1.0


def study(**changed) -> Grid:
    settings = {
        "name": "tiny",
        "title": "A tiny study",
        "overrides": [*CLASSES, *TINY, *STUDENT],
        "seeds": [0, 1],
        "seed_overrides": ["seed={seed}", "teacher.seed={seed}"],
        "rows": {"alone": ["method=alone"], "KD": ["method=kd"]},
        "baseline": "alone",
        "cost_row": None,
        "teacher_row": True,
        "columns": ["test/top1", "fidelity/test/kl"],
        "protocol": "last",
    }
    return Grid(**settings | changed)


def options(**changed) -> Options:
    return study_options(**{"fused_limit": 16} | changed)


def test_a_study_runs_what_is_missing_and_nothing_else(tmp_path, monkeypatch, capsys):
    outputs = tmp_path / "outputs"
    paths = {
        "data": str(tmp_path),
        "outputs": str(outputs),
        "runs": f"{outputs}/runs",
        "teachers": f"{outputs}/teachers",
    }
    assert study().execute(paths, options()) == []
    folder = outputs / "studies" / "tiny"
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(first) == {"table.md", "table.csv", "table.png", "table.manifest.json"}
    assert len(list((outputs / "runs").iterdir())) == 4 and len(list((outputs / "teachers").iterdir())) == 2
    cells = {(c["row"], c["metric"]): c for c in csv.DictReader(io.StringIO(first["table.csv"].decode()))}
    tops = [
        Result(p, json.loads((p / "result.json").read_text())).metric("test/top1")
        for p in (outputs / "runs").glob("*-kd-*")
    ]
    assert (
        float(cells["KD", "test/top1"]["mean"]) == pytest.approx(np.mean(tops)) and cells["KD", "test/top1"]["n"] == "2"
    )
    monkeypatch.setattr("kdx.runs.run._train", lambda *_: pytest.fail("it trained again"))
    assert study().execute(paths, options()) == []
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".png"} == {
        k: v for k, v in first.items() if not k.endswith(".png")
    }
    assert "A tiny study" in capsys.readouterr().out


def test_a_study_that_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="at least one seed and one row"):
        study(seeds=[])
    with pytest.raises(UserError, match="study.baseline 'alnoe' is not a row"):
        study(baseline="alnoe")


def test_overrides_of_every_run_are_said_where_they_change_what_runs_are(tmp_path, capsys):
    paths = {key: str(tmp_path / key) for key in ("data", "outputs", "runs", "teachers")}
    asked = options(overrides=["trainer.duration.steps=3", "trainer.threads=1"], rows=["alone"])
    assert study(rows={"alone": ["method=supervised"]}, teacher_row=False).execute(paths, asked) == []
    table = (tmp_path / "outputs" / "studies" / "tiny" / "table.md").read_text()
    assert "- every run with trainer.duration.steps=3\n" in table and "; 3 steps a run" in table
