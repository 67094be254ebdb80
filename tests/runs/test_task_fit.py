"""Parts that a task cannot feed are refused before anything loads; a run has only the metrics of its task."""

import json
import re
from pathlib import Path

import pytest
import torch

from kdx.commands.show import show
from kdx.config.compose import ConfigError, compose
from kdx.core.outputs import Outputs
from kdx.report.collect import collect
from kdx.report.curves import mean_curves, read_curves
from kdx.report.groups import group_runs
from kdx.report.payload import payload, predictions_of
from kdx.report.verdicts import report
from kdx.runs.build import build_light, build_loaders, build_teacher
from kdx.runs.ensemble_config import each_teacher
from kdx.runs.prepare import prepare
from kdx.runs.results import Result
from kdx.runs.run import run
from kdx.tables.table import Table

METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs/method").glob("*.yaml"))
OF_VALUES = {"mse", "l1", "huber", "mse_kd", "sobolev_mse"}
# they read features of any task, but of texts alone
OF_TEXTS = {"minilm", "minilm_v2", "tinybert_intermediate"}
CLASS_METRIC = re.compile(r"top-?\d|\bnll\b|\bece\b|brier|agreement|(^|/|_)kl\b|accuracy", re.IGNORECASE)
SHORT = ("trainer.duration.steps=6", "trainer.log_steps=2", "evals.test.every=2", "trainer.threads=1", "logger=jsonl")


@pytest.mark.parametrize("method", [m for m in METHODS if m not in OF_VALUES | OF_TEXTS])
def test_a_method_of_classes_is_refused_in_one_line(tmp_path: Path, method: str):
    with pytest.raises(ConfigError) as found:
        prepare(compose(["dataset=plane", f"method={method}", f"paths.outputs={tmp_path}"]))
    (line,) = found.value.problems
    assert re.match(
        rf"method={method} does not fit dataset=plane, which has values: .* needs? (classes|labels|boxes|pixels)", line
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("dataset", ["digits", "plane"])
@pytest.mark.parametrize("method", sorted(OF_TEXTS | {"distilbert_task", "pkd"}))
def test_a_method_of_texts_is_refused_in_one_line(tmp_path: Path, method: str, dataset: str):
    with pytest.raises(ConfigError) as found:
        prepare(compose([f"dataset={dataset}", f"method={method}", f"paths.outputs={tmp_path}"]))
    (line,) = found.value.problems
    of_classes = dataset == "plane" and method not in OF_TEXTS
    expected = "need classes" if of_classes else "compares the tokens of texts, and the inputs of this data set are"
    assert expected in line and len(line) < 300
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["distilbert", "masked_lm"])
def test_a_method_of_hidden_tokens_is_refused_in_one_line(tmp_path: Path, method: str):
    with pytest.raises(ConfigError) as found:
        prepare(compose(["dataset=digits", f"method={method}", f"paths.outputs={tmp_path}"]))
    (line,) = found.value.problems
    assert "this student gives one vector of logits per example" in line and len(line) < 300


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("augmentation=mixup", "augmentation.mixing needs a task with classes"),
        ("augmentation=cutmix", "augmentation.mixing needs a task with classes"),
        ("transfer.omit_classes=[0]", "transfer.omit_classes needs a task with classes, and this task has values"),
        ("transfer=unlabelled", "unlabelled needs a task with classes"),
        ("evals=boundary", "evals.boundary: Boundary needs a task with classes, and this task has values"),
        ("student.net.num_classes=3", "student.net.num_classes must be 1 for dataset=plane, found 3"),
        ("dataset.target_std=[1,2]", "dataset: target_mean and target_std need one number for each of num_outputs=1"),
        ("teacher.optimize=folded", "teacher.optimize=folded is verified by predicted classes"),
    ],
)
def test_other_parts_that_need_classes_are_refused(tmp_path: Path, override: str, sentence: str):
    with pytest.raises(ConfigError) as found:
        prepare(compose(["dataset=plane", "method=mse_kd", override, f"paths.outputs={tmp_path}"]))
    assert any(sentence in line for line in found.value.problems)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dataset", "override", "sentence"),
    [
        ("diabetes", "teacher.combine=geometric", "teacher.combine=geometric averages predicted probabilities"),
        ("diabetes", "teacher.combine_temperature=4", "teacher.combine_temperature scales logits"),
        ("diabetes", "teacher.combine=specialists", "teacher.combine=specialists needs a task with classes"),
        ("multilabel", "teacher.combine=specialists", "teacher.combine=specialists needs a task with classes"),
        ("multilabel", "teacher.optimize=folded", "teacher.optimize=folded is verified by predicted classes"),
    ],
)
def test_an_ensemble_rule_or_teacher_form_that_needs_classes_is_refused(tmp_path, dataset, override, sentence):
    with pytest.raises(ConfigError) as found:
        prepare(compose([f"dataset={dataset}", "teacher.seeds=[0,1]", override, f"paths.outputs={tmp_path}"]))
    (line,) = found.value.problems
    assert line.startswith(sentence) and len(line) < 300


@pytest.mark.parametrize("dataset", ["diabetes", "multilabel"])
def test_an_ensemble_is_measured_as_the_mean_of_its_members(tmp_path: Path, dataset: str):
    config = prepare(compose([f"dataset={dataset}", "teacher.seeds=[0,1]", *SHORT, f"paths.outputs={tmp_path}"]))
    result = run(config)
    light = build_light(config)
    loaders = build_loaders(config, light)
    (batch,) = loaders.evals["test"]
    given = []
    for name, own in each_teacher(config).items():
        net = build_teacher(own, Path(result.data["teacher"]["members"][name]["weights"]))
        given.append(net(batch.inputs).logits.double())
    a, b = given
    mean = (a + b) / 2 if dataset == "diabetes" else ((a.sigmoid() + b.sigmoid()) / 2).logit()
    expected = {}
    for metric in loaders.spec.task.metrics().values():
        metric.update(*loaders.spec.task.pair(Outputs(mean), batch))
        expected |= metric.compute()
    measured = result.data["teacher"]
    assert not torch.allclose(a, b, atol=1e-2)
    for name, value in expected.items():
        assert measured[f"test/{name}"] == pytest.approx(value, rel=1e-4), name


def trained(tmp_path: Path, dataset: str, method: str, *more: str) -> Result:
    return run(prepare(compose([f"dataset={dataset}", f"method={method}", *SHORT, *more, f"paths.outputs={tmp_path}"])))


@pytest.mark.parametrize("dataset", ["plane", "diabetes"])
@pytest.mark.parametrize("method", ["sobolev_mse", "mse_kd"])
def test_no_metric_of_classes_is_printed_or_stored(tmp_path: Path, dataset: str, method: str):
    recipe = "teacher.recipe=['method=mse','trainer.duration.steps=6']" if dataset == "diabetes" else "seed=0"
    results = [trained(tmp_path, dataset, method, recipe, f"seed={seed}") for seed in (0, 1)]
    names = {name for r in results for of in r.data["metrics"].values() if of for name in of}
    assert {"test/rmse", "test/mae", "test/r2", "fidelity/test/rmse_to_teacher"} <= names
    assert results[0].data["metrics"]["best_on_test"]["test/rmse"] <= results[0].data["metrics"]["last"]["test/rmse"]
    found = collect([tmp_path / "runs"])
    grouped = group_runs(found.runs)
    curves = [mean_curves([read_curves(r.result.folder) for r in g.runs]) for g in grouped.groups]
    page = payload(found, grouped, curves, predictions_of(grouped, []), "title")
    assert page["main"] == "test/rmse" and page["reliability"] == page["confusion"] == {}
    shown = ("metrics", "main", "fidelity", "columns", "training")
    table = Table.build(
        title="", results={"a": dict(enumerate(results))}, columns=["test/rmse", "fidelity/test/rmse_to_teacher"],
        protocol="last", baseline=None, cost_row=None, teacher_row=True,
    )  # fmt: skip
    told = [
        *(line for r in results for line in show(r).splitlines()[:-1]),
        *(name for r in results for name in json.loads((r.folder / "result.json").read_text())["teacher"]),
        *names,
        *(name for line in (results[0].folder / "metrics.jsonl").read_text().splitlines() for name in json.loads(line)),
        json.dumps({key: page[key] for key in shown}),
        json.dumps([(list(of["values"]["last"]), list(of["values"])) for of in page["groups"]]),
        report(found.runs[:1], found.runs[1:], [], "last").split("95 % over seeds")[1],
        table.markdown(),
        table.csv(),
    ]
    assert not [text for text in told if CLASS_METRIC.search(text)]
    assert any("RMSE" in text and "R²" not in text for text in told)
