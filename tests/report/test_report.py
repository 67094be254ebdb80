"""The report: runs grouped over seeds, what varies between groups, and a page that works."""

import json
import math
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import OTHER_TASKS
from fabricate import changed, fabricate, sweep_of_many
from safetensors.torch import load_file, save_file

from kdx.core.errors import UserError
from kdx.metrics.calibration import Calibration
from kdx.report.collect import collect
from kdx.report.curves import POINTS, mean_curves, read_curves
from kdx.report.entry import main
from kdx.report.groups import group_runs
from kdx.report.knobs import curves
from kdx.report.payload import payload
from kdx.report.predicted import BINS, Predicted, read_predicted
from kdx.report.recompute import fill_predictions
from kdx.report.write import write_report
from kdx.runs.prepare import network_name
from kdx.runs.results import PREDICTIONS
from kdx.runs.run import run
from kdx.tasks.classes import BINS as METRIC_BINS


@pytest.fixture
def kd(tiny):
    return tiny("method=kd")


@pytest.fixture
def many(tmp_path, kd):
    """24 groups of 2 seeds."""
    sweep_of_many(tmp_path / "runs", kd, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 2)
    return tmp_path / "runs"


def test_groups_are_repetitions_over_seeds(tmp_path, kd):
    accuracies = [0.81, 0.84, 0.9]
    for seed, accuracy in enumerate(accuracies):
        config = changed(kd, seed=seed, data_seed=seed, teacher__seed=seed)
        fabricate(tmp_path / f"kd{seed}", config, {"test/top1": accuracy})
    other = changed(kd, method__weights__kd=0.5)
    fabricate(tmp_path / "weighted", other, {"test/top1": 0.7})
    # the same experiment with the same seeds is no repetition, be it written 4 or 4.0
    copy = changed(other, method__temperature=int(other["method"]["temperature"]))
    fabricate(tmp_path / "weighted-again", copy, {"test/top1": 0.7})
    grouped = group_runs(collect([tmp_path]).runs)
    assert sorted(len(g.runs) for g in grouped.groups) == [1, 3]
    notes = write_report([tmp_path], tmp_path / "report", "title", predict=False, pictures=False)
    assert notes[-1] == "4 runs in 2 groups, 1 that another repeats left out"
    assert [knob.path for knob in grouped.knobs] == ["method.weights.kd"]
    group = max(grouped.groups, key=lambda g: len(g.runs))
    summary = group.summary("test/top1")
    assert summary is not None
    assert summary.mean == pytest.approx(statistics.mean(accuracies))
    assert summary.std == pytest.approx(statistics.stdev(accuracies))
    assert group.summary("test/top1", "val_selected") is None
    assert group.summary("seconds") is not None


def test_a_metric_counts_only_where_every_seed_has_it(tmp_path, kd):
    fabricate(tmp_path / "a", kd, {"test/top1": 0.8, "test/nll": 1.0})
    fabricate(tmp_path / "b", changed(kd, seed=1), {"test/top1": 0.8})
    (group,) = group_runs(collect([tmp_path]).runs).groups
    assert group.summary("test/nll") is None


def test_sweeps_follow_one_knob_with_the_rest_fixed(many):
    grouped = group_runs(collect([many]).runs)
    # the temperature of the term is interpolated from the method's: one knob, not two
    assert [knob.path for knob in grouped.knobs] == ["method.temperature", "optimizer.lr"]
    first = [g.runs[0] for g in grouped.groups]
    temperature, lr = grouped.knobs
    along = curves(first, temperature, grouped.knobs)
    assert [c.values for c in along] == [[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]] * 4
    for curve in along:
        assert len({first[i].experiment["optimizer.lr"] for i in curve.members}) == 1
    assert len(curves(first, lr, grouped.knobs)) == 6
    assert len({g.label for g in grouped.groups}) == 24


def test_weights_that_move_together_are_one_sweep(tmp_path, kd):
    for i, share in enumerate((0.1, 0.5, 0.9)):
        config = changed(kd, method__weights__kd=share, method__weights__ce=1 - share)
        fabricate(tmp_path / f"r{i}", config, {"test/top1": share})
    grouped = group_runs(collect([tmp_path]).runs)
    knob = next(k for k in grouped.knobs if k.path == "method.weights.kd")
    (curve,) = curves([g.runs[0] for g in grouped.groups], knob, grouped.knobs)
    assert curve.values == [0.1, 0.5, 0.9]
    assert curve.along == ["ce"]


def test_methods_are_identified_by_name_not_by_their_parts(tmp_path, kd, tiny):
    for option in ("dkd", "supervised"):
        fabricate(tmp_path / option, tiny(f"method={option}"), {"test/top1": 0.8})
    fabricate(tmp_path / "kd", kd, {"test/top1": 0.8}, teacher="supervised")
    grouped = group_runs(collect([tmp_path]).runs)
    assert grouped.parts == ["method"]
    assert grouped.knobs == []
    assert {g.label: g.teaches for g in grouped.groups} == {"dkd": False, "kd": False, "supervised": True}


def test_names_and_bins_are_those_of_the_run(tmp_path, kd):
    (found,) = collect([fabricate(tmp_path / "a", kd, {"test/top1": 0.8})]).runs
    assert [found.scene[role] for role in ("student", "teacher")] == [
        network_name(kd, r) for r in ("student", "teacher")
    ]
    assert BINS == METRIC_BINS


def test_curves_are_means_at_common_steps(tmp_path):
    for name, offset in (("a", 0.0), ("b", 2.0)):
        lines = [{"step": s, "epoch": s / 10, "train/loss": s + offset, "train/lr": None} for s in range(1000)]
        lines[500]["train/loss"] = None
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tracks = [read_curves(tmp_path / name) for name in "ab"]
    assert [len(t) for t in tracks] == [POINTS, POINTS]
    epochs, mean, std = mean_curves(tracks)["train/loss"]
    assert epochs[-1] == 99.9
    assert mean == pytest.approx([10 * e + 1 for e in epochs])
    assert std == pytest.approx([math.sqrt(2)] * len(epochs))
    assert mean_curves([tracks[0]])["train/loss"][2] == [None] * len(epochs)
    assert read_curves(tmp_path / "nowhere") == []


def test_predictions_give_the_metrics_tables(tmp_path):
    """Reliability as the calibration metric has it, confusion as a loop counts it."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 3, (200,), generator=generator)
    tables, metric = {"label": label.int()}, Calibration(bins=BINS)
    for role in ("student", "teacher"):
        logits = torch.randn(200, 3, generator=generator)
        if role == "student":
            metric.update(logits, label)
        probabilities = logits.double().softmax(1)
        tables[f"{role}/prediction"] = logits.argmax(1).int()
        tables[f"{role}/confidence"] = probabilities.amax(1).float()
    save_file(tables, tmp_path / PREDICTIONS)
    found = read_predicted([tmp_path], 3, [])
    assert found is not None
    expected = [[r.examples, r.confidence, r.accuracy] for r in metric.table() if r.examples]
    assert np.allclose(found.reliability()["student"], expected, atol=1e-6)
    counts = [[0] * 3 for _ in range(3)]
    for a, b in zip(label.tolist(), tables["student/prediction"].tolist(), strict=True):
        counts[a][b] += 1
    assert found.confusion["student"].tolist() == counts
    assert read_predicted([tmp_path / "nowhere"], 3, []) is None


def test_confusion_difference_is_in_shares_of_a_class():
    student, teacher = np.array([[8, 2], [0, 5]]), np.array([[4, 1], [5, 5]])
    of = Predicted({}, {"student": student, "teacher": teacher}).difference()
    assert of == {"classes": 2, "matrix": [[0.0, 0.0], [-0.5, 0.5]]}
    assert Predicted({}, {"student": student}).difference() is None
    large = np.eye(30, dtype=int) * 10
    moved = large.copy()
    moved[3, 7], moved[3, 3] = 4, 6
    of = Predicted({}, {"student": moved, "teacher": large}).difference()
    assert of == {"classes": 30, "pairs": [[3, 7, 0.4, 0.0]]}


def test_predictions_of_a_run_agree_with_its_result(kd):
    result = run(kd)
    table = load_file(result.folder / PREDICTIONS)
    right = (table["student/prediction"] == table["label"]).double().mean()
    agreed = (table["student/prediction"] == table["teacher/prediction"]).double().mean()
    assert float(right) == pytest.approx(result.metric("test/top1"))
    assert float(agreed) == pytest.approx(result.metric("fidelity/test/agreement"))
    # and can be made again from the exported weights
    (found,) = collect([result.folder]).runs
    (result.folder / PREDICTIONS).unlink()
    assert fill_predictions([found]) == []
    again = load_file(result.folder / PREDICTIONS)
    assert table.keys() == again.keys() and all(torch.equal(table[name], again[name]) for name in table)


def test_what_cannot_be_shown_is_named(tmp_path, kd):
    fabricate(tmp_path / "good", kd, {"test/top1": 0.8})
    (fabricate(tmp_path / "broken", changed(kd, seed=1), {"test/top1": 0.8}) / "result.json").write_text("{")
    (fabricate(tmp_path / "failed", changed(kd, seed=2), {"test/top1": 0.8}) / "DONE").unlink()
    (tmp_path / "failed" / "error.txt").write_text("out of memory")
    found = collect([tmp_path])
    assert [r.result.folder.name for r in found.runs] == ["good"]
    assert [f.name for f in found.unfinished] == [f.name for f in found.failed] == ["failed"]
    assert len(found.problems) == 1
    assert "broken" in found.problems[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no finished run"):
        collect([tmp_path / "empty"])


def test_commands_that_are_wrong_exit_with_two(tmp_path, capsys):
    for arguments in ([], ["--predict"], ["outputs", "tittle=x"], ["outputs", "predict=yes"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert "did you mean 'title'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "nowhere")])
    assert stop.value.code == 2 and "nowhere: no such directory" in capsys.readouterr().err


def test_the_page_stands_alone_and_the_pictures_are_beside_it(many, tmp_path):
    write_report([many], tmp_path / "out", "a </script><b>title</b> {{data}}", predict=False, pictures=True)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<b>title" not in page
    assert re.findall(r"""(?:\bsrc|\bhref)=(?!"data:)|@import|\burl\(""", page) == []
    pictures = {p.stem for p in (tmp_path / "out").glob("*.png")}
    assert {"sweep_method_temperature", "sweep_optimizer_lr", "training", "fidelity"} <= pictures
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert sum(g["n"] for g in data["groups"]) == len(data["runs"]) == 48
    # the two configs that the page compares are put together from a base and what each differs in
    for i, line in enumerate(data["runs"]):
        leaves = {**data["configs"]["base"], **data["configs"]["own"][i]}
        assert leaves["seed"] == line["seed"]


@pytest.mark.parametrize("method", ["bce_labels", "mse"])
def test_the_page_of_a_task_without_classes_has_no_class_metrics(tmp_path, tiny, method):
    task = run(tiny(f"method={method}", data=OTHER_TASKS[method])).data["task"]
    write_report([tmp_path], tmp_path / "out", "Other tasks", predict=True, pictures=True)
    data = json.loads((tmp_path / "out" / "index.html").read_text().split('id="data">')[1].split("</script>")[0])
    names = {metric["name"].split("/")[-1] for metric in data["metrics"]}
    assert data["main"] == f"test/{task['primary']}"
    assert {metric["name"] for metric in task["metrics"] if "/" not in metric["name"]} <= names
    assert names.isdisjoint({"top1", "top5", "nll", "ece", "brier"})
    assert not data["reliability"] and not data["confusion"]


def test_the_folder_is_named_by_to(tmp_path, kd, capsys):
    fabricate(tmp_path / "runs" / "a", kd, {"test/top1": 0.8})
    main([str(tmp_path / "runs"), f"to={tmp_path / 'there'}", "pictures=false"])
    assert capsys.readouterr().out.strip() == str(Path(tmp_path / "there" / "index.html"))


def test_a_search_is_marked_by_its_choice_on_validation_and_not_by_the_best_on_test(tmp_path, kd):
    for temperature, val, test in ((1.0, 0.80, 0.95), (2.0, 0.90, 0.85), (4.0, 0.85, 0.90)):
        for seed in range(2):
            config = changed(kd, seed=seed, data_seed=seed, method__temperature=temperature)
            values = {"val/top1": val, "test/top1": test, "test/nll": 1.0}
            fabricate(tmp_path / f"t{temperature}-{seed}", config, values)
    grouped = group_runs(collect([tmp_path]).runs)
    (chosen,) = grouped.chosen()
    means = [(g.values["last"]["val/top1"].mean, g.values["last"]["test/top1"].mean) for g in grouped.groups]
    assert means[chosen] == pytest.approx((0.90, 0.85))
    assert [means[i][0] for i in grouped.best_first("test/top1")] == pytest.approx([0.90, 0.85, 0.80])
    page = payload(collect([tmp_path]), grouped, [{}] * 3, [None] * 3, "")
    assert [of["chosen"] for of in page["groups"]].count(True) == 1 and page["columns"][0] == "val/top1"
