"""Verdicts, holes and failures of tables; tables run end to end on digits; the tables that are shipped."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from scipy.stats import ttest_ind_from_stats
from study_options import study_options

from kdx.config.compose import ConfigError, compose
from kdx.config.identity import identity
from kdx.config.layout import config_dir, options
from kdx.config.validate import check
from kdx.core.errors import UserError
from kdx.models.weights import sha256
from kdx.pool.pool import run_all
from kdx.runs.build import make
from kdx.runs.export import folder_of
from kdx.runs.prepare import examine
from kdx.studies.config_cache import ConfigCache
from kdx.studies.options import select
from kdx.studies.paper_table import PaperTable
from kdx.studies.table_runs import with_seed
from kdx.tables.paper_cells import Printed, Reported, convert, judge
from kdx.tables.statistics import Summary, t_quantile

SHIPPED = sorted(
    p.relative_to(config_dir() / "study").with_suffix("").as_posix()
    for p in (config_dir() / "study").rglob("*.yaml")
    if "paper_table.PaperTable" in p.read_text()
)


def printed(value=70.0, std=None, runs=5, protocol="last", provenance="read"):
    of = Reported(source="s", provenance=provenance, protocol=protocol, runs=runs, values={}, std={})
    return Printed(value, std, "s", of)


# ---- what may be said of a difference


def test_a_number_inside_the_margin_is_not_distinguishable():
    ours = Summary(70.2, 0.2, 5)
    difference, margin, verdict = judge(ours, printed(), "last", True)
    assert difference == pytest.approx(0.2)
    # t with 4 degrees of freedom, both means of five runs with our spread
    assert margin == pytest.approx(2.776 * 0.2 * (1 / 5 + 1 / 5) ** 0.5, abs=1e-4)
    assert verdict == "not distinguishable"


@pytest.mark.parametrize(("mean", "verdict"), [(71.0, "higher"), (69.0, "lower")])
def test_a_number_outside_is_higher_or_lower(mean, verdict):
    assert judge(Summary(mean, 0.2, 5), printed(), "last", True)[2] == verdict


def test_a_printed_deviation_counts():
    ours = Summary(70.5, 0.1, 5)
    assert judge(ours, printed(), "last", True)[2] == "higher"
    assert judge(ours, printed(std=0.6), "last", True)[2] == "not distinguishable"


@pytest.mark.parametrize(("n", "std", "runs"), [(5, 0.6, 3), (3, 0.1, 5), (4, 0.2, 4), (5, 0.3, 2)])
def test_two_counted_deviations_are_welch_s(n, std, runs):
    values = [70.1 + 0.13 * (i % 3) + 0.05 * i for i in range(n)]
    ours = Summary.of(values)
    _, margin, verdict = judge(ours, printed(std=std, runs=runs), "last", True)
    pvalue = ttest_ind_from_stats(ours.mean, ours.std, n, 70.0, std, runs, equal_var=False).pvalue
    assert (verdict == "not distinguishable") == (pvalue >= 0.05)
    # a difference as large as the margin is the one whose p is 0.05
    edge = ttest_ind_from_stats(70.0 + margin, ours.std, n, 70.0, std, runs, equal_var=False).pvalue
    assert edge == pytest.approx(0.05)


def test_runs_that_nobody_counted_are_one():
    ours = Summary(70.3, 0.2, 5)
    margin = t_quantile(0.975, 4) * 0.2 * (1 / 5 + 1) ** 0.5
    assert judge(ours, printed(runs=None), "last", True)[1] == pytest.approx(margin)


@pytest.mark.parametrize("protocol", ["best_on_test", "val_selected", "unstated"])
def test_another_protocol_is_not_compared(protocol):
    assert judge(Summary(70.0, 0.1, 5), printed(protocol=protocol), "last", True) == (None, None, None)


def test_another_scale_is_not_compared():
    assert judge(Summary(70.0, 0.1, 5), printed(), "last", False) == (None, None, None)


def test_what_is_not_there_is_not_compared():
    assert judge(None, printed(), "last", True) == judge(Summary(1.0, 0.1, 5), None, "last", True) == (None,) * 3


@pytest.mark.parametrize("n", [1, 2])
def test_few_seeds_have_a_difference_and_no_verdict(n):
    assert judge(Summary.of([70.0, 71.0][:n]), printed(), "last", True)[1:] == (None, None)


def test_units():
    assert convert(0.7066, "percent", 10000) == pytest.approx(70.66)
    assert convert(0.9854, "errors", 10000) == 146
    assert convert(0.0133, "count", 10000) == 133
    assert convert(0.25, "plain", 1) == 0.25


# ---- a table


NUMBERS = {"source": "s", "provenance": "read", "protocol": "last", "runs": 5, "std": {}}
DIGITS = [
    "dataset=digits",
    "logger=none",
    "student=mlp_30",
    "teacher=mlp_30",
    "teacher.recipe=['trainer.duration.steps=4']",
    "trainer.duration.steps=6",
    "trainer.threads=1",
    "trainer.device=cpu",
]


def table(**changes):
    given = {
        "name": "paper/tiny",
        "title": "Tiny",
        "paper": "A. Author, 2020",
        "overrides": DIGITS,
        "rows": {
            "teacher": [],
            "alone": ["method=alone"],
            "KD": ["method=kd"],
            "X": ["method=not_built_yet"],
            "Y": None,
        },
        "columns": {"T4": [], "T2": []},
        "cells": {"KD": {"T2": ["method.temperature=2"]}},
        "awaits": ["method=not_built_yet"],
        "metric": "test/top1",
        "unit": "percent",
        "measures": {},
        "protocol": "last",
        "teacher_row": "teacher",
        "baseline": "alone",
        "shows": "metric",
        "scales": {
            "smoke": {"overrides": ["trainer.duration.steps=3"], "seeds": [0], "paper": False},
            "paper": {"overrides": [], "seeds": [0, 1, 2], "paper": True},
        },
        "reported": {"s": {**NUMBERS, "values": {"KD": [50.0, None], "X": [60.0, 61.0]}}},
        "notes": ["a note"],
    }
    return PaperTable(**{**given, **changes})


def asked(**changes):
    return study_options(**{"scale": "smoke", "fused_limit": 16} | changes)


def places(folder: Path) -> dict[str, str]:
    names = {key: str(folder / key) for key in ("data", "outputs", "runs", "teachers")}
    return {**names, "outputs": str(folder)}


def cells(folder: Path, scale: str) -> dict[tuple[str, str], dict[str, str]]:
    with open(folder / "tables" / "paper" / "tiny" / f"{scale}.csv") as file:
        return {(row["row"], row["column"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """A table run once at the scale smoke."""
    folder = tmp_path_factory.mktemp("outputs")
    assert table().execute(places(folder), asked()) == []
    return folder


def test_runs_what_it_says(outputs):
    found = cells(outputs, "smoke")
    assert [row for (row, column) in found if column == "T4"] == ["teacher", "alone", "KD", "X", "Y"]
    for place in (("KD", "T4"), ("KD", "T2"), ("alone", "T4")):
        assert found[place]["n"] == "1" and found[place]["hole"] == ""
    assert len(list((outputs / "runs").iterdir())) == 3  # alone is one run in both columns
    assert table().finished(places(outputs), asked()) == (3, 3)
    assert len(list((outputs / "teachers").iterdir())) == 1
    (teacher,) = (outputs / "teachers").iterdir()
    top1 = json.loads((teacher / "result.json").read_text())["metrics"]["last"]["test/top1"]
    assert float(found["teacher", "T4"]["mean"]) == pytest.approx(100 * top1)


def test_holes_say_why(outputs):
    found = cells(outputs, "smoke")
    assert found["X", "T4"]["hole"] == "not built: method=not_built_yet"
    assert found["X", "T4"]["reported"] == "60.0"
    assert found["Y", "T2"]["hole"] == "not available"


def test_another_scale_is_in_the_title_and_judges_nothing(outputs):
    page = (outputs / "tables" / "paper" / "tiny" / "smoke.md").read_text()
    assert page.startswith("# Tiny: scale smoke, not the paper's")
    assert all(row["verdict"] == row["difference"] == "" for row in cells(outputs, "smoke").values())
    assert "fewer than 3 seeds" in page and "a note" in page and "trainer.duration.steps=3" in page


def test_the_second_time_trains_nothing(outputs, monkeypatch):
    def no_training(*_):
        raise AssertionError("a run was started")

    monkeypatch.setattr("kdx.pool.pool.run_together", no_training)
    monkeypatch.setattr("kdx.studies.table_runs.rehearse", no_training)
    before = (outputs / "tables" / "paper" / "tiny" / "smoke.csv").read_text()
    assert table().execute(places(outputs), asked()) == []
    assert (outputs / "tables" / "paper" / "tiny" / "smoke.csv").read_text() == before


def test_render_runs_nothing_and_shows_holes(tmp_path, monkeypatch):
    monkeypatch.setattr("kdx.pool.pool.run_together", None)
    one = table(columns={"T4": []}, cells={}, reported={})
    assert one.execute(places(tmp_path), asked(only="render", scale="paper")) == []
    assert one.finished(places(tmp_path), asked(scale="paper")) == (0, 6)
    found = cells(tmp_path, "paper")
    assert found["KD", "T4"]["hole"] == "not run" and not (tmp_path / "runs").exists()
    assert (tmp_path / "tables" / "paper" / "tiny" / "paper.md").read_text().startswith("# Tiny\n")


def test_only_what_is_asked_for_runs(tmp_path):
    folder = places(tmp_path)
    assert table().execute(folder, asked(rows=["K*"], columns=["T2"])) == []
    found = cells(tmp_path, "smoke")
    assert found["KD", "T2"]["n"] == "1" and found["KD", "T4"]["hole"] == "not run"
    with pytest.raises(UserError, match="no name matches 'DKD'"):
        table().execute(folder, asked(rows=["DKD"]))
    with pytest.raises(UserError, match="scale=big: this study has smoke, paper"):
        table().execute(folder, asked(scale="big"))


def test_a_failure_stops_no_other_and_is_tried_again_when_asked(tmp_path, monkeypatch, capsys):
    import kdx.runs.run as runs

    train = runs._train

    def fail(config, folder, *rest):
        if config.choices["method"] == "alone":
            raise UserError("the disk is on fire")
        return train(config, folder, *rest)

    monkeypatch.setattr(runs, "_train", fail)
    one = table(columns={"T4": []}, cells={}, reported={})
    lines = one.execute(places(tmp_path), asked())
    assert len(lines) == 1 and "the disk is on fire" in lines[0] and str(tmp_path / "runs") in lines[0]
    assert "alone, T4, seed 0" in capsys.readouterr().err
    found = cells(tmp_path, "smoke")
    assert found["alone", "T4"]["hole"] == "failed" and found["KD", "T4"]["n"] == "1"
    monkeypatch.setattr(runs, "_train", train)
    (again,) = one.execute(places(tmp_path), asked())
    assert "retry=failed" in again
    assert one.execute(places(tmp_path), asked(retry="failed")) == []
    assert cells(tmp_path, "smoke")["alone", "T4"]["hole"] == ""


def test_gains_are_over_the_baseline_seed_by_seed(outputs):
    metric = cells(outputs, "smoke")
    gains = table(shows="gain", name="paper/gains")
    assert gains.execute(places(outputs), asked(only="render")) == []
    with open(outputs / "tables" / "paper" / "gains" / "smoke.csv") as file:
        found = {(row["row"], row["column"]): row for row in csv.DictReader(file)}
    expected = float(metric["KD", "T2"]["mean"]) - float(metric["alone", "T2"]["mean"])
    assert float(found["KD", "T2"]["mean"]) == pytest.approx(expected)
    with pytest.raises(UserError, match="a gain needs study.baseline"):
        table(shows="gain", baseline=None)


def test_the_last_word_on_a_key_counts():
    of = table(cells={"KD": {"T2": ["method.temperature=2", "trainer.threads=2"]}})
    found = of.recipe("KD", "T2", of.scales["smoke"])
    assert [o for o in found if o.startswith("trainer.duration.steps=")] == ["trainer.duration.steps=3"]
    assert "trainer.threads=2" in found and "trainer.threads=1" not in found


def test_a_failed_teacher_is_trained_once_and_named(tmp_path, monkeypatch):
    import kdx.runs.run as runs

    tried = []

    def fail(config, folder, *rest):
        tried.append(folder)
        raise UserError("no teacher today")

    monkeypatch.setattr(runs, "_train", fail)
    lines = table(columns={"T4": []}, cells={}, reported={}).execute(places(tmp_path), asked())
    assert len(tried) == 1 and len(lines) == 2
    assert all("its teacher failed: no teacher today" in line for line in lines)


def test_wrong_overrides_of_a_cell_are_a_hole_and_a_line(tmp_path):
    rows, columns = {"KD": ["method=kdd"]}, {"T4": []}
    wrong = table(rows=rows, columns=columns, teacher_row=None, baseline=None, cells={}, reported={})
    (line,) = wrong.execute(places(tmp_path), asked(only="render"))
    assert "unknown method 'kdd'" in line
    assert cells(tmp_path, "smoke")["KD", "T4"]["hole"] == "does not fit"


def test_processes_give_the_same_bits(tmp_path):
    found = {}
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        where = [f"paths.{k}={v}" for k, v in places(folder).items()]
        configs = {
            f"{method} {seed}": examine(compose([*where, *DIGITS, f"method={method}", f"seed={seed}"]))
            for method in ("kd", "alone")
            for seed in (0, 1)
        }
        results, failures = run_all(configs, jobs, None, 1)
        assert failures == [] and list(results) == list(configs)
        found[jobs] = {
            name: (r.folder.name, r.student.read_bytes(), r.metric("test/nll")) for name, r in results.items()
        }
        if jobs == 2:
            assert all((folder_of(config) / "output.txt").exists() for config in configs.values())
    assert found[1] == found[2]


def test_a_process_that_fails_is_reported(tmp_path):
    where = [f"paths.{k}={v}" for k, v in places(tmp_path).items()]
    data = ["dataset=cifar100", "student=resnet8", "method=supervised", "logger=none", "trainer.device=cpu"]
    configs = {"lost": examine(compose([*where, *data]))}
    results, (failure,) = run_all(configs, 2, None, 1)
    assert results == {} and str(tmp_path / "data") in failure.error


# ---- what is kept between commands


def test_recall_gives_what_composing_gives(tmp_path, monkeypatch):
    overrides = [*DIGITS, "method=kd", "seed=3"]
    expected = examine(compose(overrides))
    first = ConfigCache(tmp_path / "c.json")
    assert first.config(overrides) == (expected, True)
    first.save()
    monkeypatch.setattr("kdx.studies.config_cache.compose", None)
    assert ConfigCache(tmp_path / "c.json").config(overrides) == (expected, True)
    monkeypatch.setattr("kdx.studies.config_cache.digest", lambda: "code that has changed")
    with pytest.raises(TypeError):
        ConfigCache(tmp_path / "c.json").config(overrides)


def test_recall_looks_at_given_images_each_time(tmp_path):
    file, images = tmp_path / "images.safetensors", torch.zeros(1, 8, 8, 1, dtype=torch.uint8)
    overrides = [*DIGITS, "method=kd", "transfer=synthetic", f"transfer.unlabelled.path={file}"]
    cache, sums = ConfigCache(tmp_path / "c.json"), []
    for value in (0, 1):
        save_file({"images": images + value}, file)
        sums.append(cache.config(overrides)[0].transfer["unlabelled"]["sha256"])
    assert sums[0] != sums[1] == sha256(file)


@pytest.mark.parametrize("extra", [[], ["data_seed=7"]])
def test_another_seed_is_what_composing_it_gives(extra):
    first, other = ([*DIGITS, "method=kd", *extra, f"seed={seed}"] for seed in (0, 5))
    composed = compose(first)
    derived = with_seed(examine(composed), 5, "data_seed" in composed.interpolated)
    assert derived == examine(compose(other))


# ---- mistakes in a table's own YAML


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reported": {"s": {**NUMBERS, "values": {"KD": [1.0]}}}}, "2 columns want as many numbers"),
        ({"reported": {"s": {**NUMBERS, "values": {"KK": [1.0, 2.0]}}}}, "there is no 'KK'"),
        ({"baseline": "nobody"}, "study.baseline: there is no 'nobody'"),
        ({"cells": {"KD": {"T9": []}}}, "there is no 'T9'"),
        ({"scales": {}}, "at least one row, one column and one scale"),
        ({"scales": {"s": {"overrides": [], "seeds": [], "paper": True}}}, "at least one seed"),
    ],
)
def test_mistakes_are_reported(changes, message):
    with pytest.raises(UserError, match=message):
        table(**changes)


def test_two_sources_for_one_number_are_refused():
    with pytest.raises(UserError, match="two sources"):
        table(reported={k: {**NUMBERS, "values": {"KD": [1.0, 2.0]}} for k in ("a", "b")})


def test_select():
    assert select(None, ["a", "b"], "rows") == ["a", "b"]
    assert select(["b", "a*"], ["a1", "b", "a2", "c"], "rows") == ["a1", "b", "a2"]


# ---- the tables that come with kdx


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_table_is_whole(name):
    study = compose([f"study={name}"], "study").config["study"]
    assert check(study, "study") == []
    built = make(study)
    assert built.name == name
    assert {"smoke", "cpu", "paper"} == set(built.scales) and next(iter(built.scales)) == "smoke"
    assert built.scales["paper"].paper and not built.scales["cpu"].paper and not built.scales["smoke"].paper
    head = (config_dir() / "study" / f"{name}.yaml").read_text()
    assert head.startswith("# ") and f"kdx study study={name}" in head
    for override in built.awaits:
        group, _, option = override.partition("=")
        assert group in ("method", "student", "teacher", "dataset", "augmentation", "update") and option


def distinct(name: str) -> list[list[str]]:
    """Override lists that together hold every override of a table: each cell that brings a new one."""
    built = make(compose([f"study={name}"], "study").config["study"])
    seen: set[str] = set()
    lists = []
    for scale in built.scales.values():
        for row in built.rows:
            for column in built.columns:
                found = built.recipe(row, column, scale)
                if isinstance(found, list) and not seen.issuperset(found):
                    seen.update(found)
                    lists.append(found)
    return lists


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_overrides_are_all_valid(name):
    for overrides in distinct(name):
        try:
            examine(compose([*overrides, "seed=0"]))
        except ConfigError as error:
            pytest.fail(f"{overrides}: {error}")


def test_an_assistant_is_taught_by_the_teacher_that_it_stands_in_for():
    study = make(compose(["study=takd/main"], "study").config["study"])
    direct, chained = (
        examine(compose([*study.recipe(row, "cifar10-plane_10_4_2", study.scales["cpu"]), "seed=0"])).teacher
        for row in ("BLKD", "TAKD")
    )
    assistant = chained.training
    assert assistant.choices["student"] == "plane4_cifar10" and assistant.choices["method"] == "takd"
    # one and the same run, which is done once for both rows
    assert identity(assistant.teacher.training) == identity(direct.training)
    assert direct.training.trainer["duration"]["steps"] == assistant.trainer["duration"]["steps"] == 2400


def test_reference_numbers_are_as_printed():
    """A few that anybody can look up, so that a shifted column shows."""
    study = yaml.safe_load((config_dir() / "study" / "crd" / "same_arch.yaml").read_text())
    values = {row: v for of in study["reported"].values() for row, v in of["values"].items()}
    at = list(study["columns"]).index("resnet56-resnet20")
    assert (values["KD"][at], values["FitNet"][at], values["CRD"][at]) == (70.66, 69.21, 71.16)
    assert options("study")  # composed from the same files


PARALLEL = """
import sys
from kdx.config.compose import compose
from kdx.pool.pool import run_all
from kdx.runs.prepare import examine

if __name__ == "__main__":
    overrides = sys.argv[1:]
    run_all({str(s): examine(compose([*overrides, f"seed={s}"])) for s in (0, 1)}, 2, None, 1)
"""


@pytest.mark.slow
def test_killing_the_command_ends_its_runs(tmp_path):
    import os
    import signal
    import subprocess
    import sys
    import time

    from kdx.commands.status import runs
    from kdx.runs.lock import is_locked

    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    where = [f"paths.{k}={v}" for k, v in places(tmp_path / "out").items()]
    long = [*DIGITS, "trainer.duration.steps=200000", "method=supervised"]
    process = subprocess.Popen([sys.executable, str(script), *where, *long], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while sum(map(is_locked, runs(tmp_path / "out"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while any(map(is_locked, runs(tmp_path / "out"))):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_table_gets_paths_and_nothing_else(tmp_path):
    study = make(compose(["study=takd/main"], "study").config["study"])
    with pytest.raises(UserError, match="overrides=optimizer.lr=1: a table runs what its file says"):
        study.execute({"outputs": str(tmp_path)}, asked(overrides=["optimizer.lr=1"]))
    found = study.recipe(
        next(iter(study.rows)), next(iter(study.columns)), study.scales["smoke"], ["trainer.device=cpu"]
    )
    assert not isinstance(found, str) and found[-1] == "trainer.device=cpu"
