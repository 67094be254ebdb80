"""A metric and a task of one's own: one file each, with nothing of the package changed."""

import sys
from pathlib import Path

import pytest

from kdx.commands.show import show
from kdx.config.compose import compose
from kdx.report.collect import collect
from kdx.report.groups import group_runs
from kdx.report.payload import payload
from kdx.runs.prepare import prepare
from kdx.runs.run import run
from kdx.tables.table import Table

METRIC = '''
from kdx.core.metric import Metric
from kdx.metrics.base import StreamingMetric


class Sign(StreamingMetric):
    """Share of values whose sign is right."""

    described = (Metric(name="sign", label="right sign", unit="%", digits=1, better="higher", shown=True),)

    def update(self, predicted, target):
        self.count(target)
        self.add("right", (predicted.sign() == target.sign()).double().mean(1).sum())

    def compute(self):
        return {"sign": self.mean("right")}
'''
TASK = '''
import math
from dataclasses import dataclass

import torch

from kdx.core.metric import Metric
from kdx.data.sources.plane import Plane
from kdx.losses.base.term import Term
from kdx.metrics.base import StreamingMetric
from kdx.tasks.base import BaseTask


class Deviance(StreamingMetric):
    """Mean deviance of Poisson counts."""

    described = (Metric(name="deviance", label="deviance", digits=3, better="lower", shown=True),)

    def update(self, rate, count):
        self.count(count)
        told = torch.where(count > 0, count * (count / rate.exp()).log(), 0.0)
        self.add("deviance", 2 * (told - count + rate.exp()).sum())

    def compute(self):
        return {"deviance": self.mean("deviance")}


@dataclass(frozen=True)
class Counts(BaseTask):
    kind = "counts"
    num_outputs = 1
    described = Deviance.described
    primary = Deviance.described[0]

    def training_metric(self, outputs, batch):
        return {}

    def metrics(self):
        return {"deviance": Deviance()}

    def pair(self, outputs, batch):
        return outputs.logits.double(), batch.target("counts").double()

    def fidelity(self):
        return Deviance()

    def together(self, logits):
        return torch.stack(list(logits)).mean(0)

    def predictions(self, outputs):
        return {"rate": outputs.logits.exp()}

    def kept_targets(self, batch):
        return {"count": batch.target("counts")}

    def made_up(self, size):
        return {"counts": torch.ones(size, 1)}


@dataclass(frozen=True, kw_only=True)
class CountPlane(Plane):
    @property
    def task(self):
        return Counts()

    def _draw(self, split, size):
        of = super()._draw(split, size)
        counts = (of.images.flatten(1).float().mean(1, keepdim=True) / 50).round()
        other = type(of)(of.images, {"counts": counts}, 255)
        return other


class Poisson(Term):
    tasks = frozenset({"counts"})
    needs_teacher = False

    def forward(self, student, teacher, batch, progress):
        return (student.logits.exp() - batch.target("counts") * student.logits).sum(1)
'''
SHORT = ("trainer.duration.steps=40", "trainer.log_steps=20", "trainer.threads=1", "logger=jsonl")


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    for name, text in (("own_metric", METRIC), ("own_task", TASK)):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "outputs"


def test_a_metric_of_ones_own_is_measured_and_shown(own: Path):
    node = (
        "+evals.sign={_target_: kdx.evals.task_metrics.ExtraMetrics, split: test, model: student, every: null, "
        "metrics: [{_target_: own_metric.Sign}]}"
    )
    result = run(prepare(compose(["dataset=plane", "method=mse", node, *SHORT, f"paths.outputs={own}"])))
    assert 0 <= result.metric("test/sign") <= 1
    told = ["right", "sign", "%", f"{100 * result.metric('test/sign'):.1f}"]
    assert any(line.split() == told for line in show(result).splitlines())
    found = collect([own / "runs"])
    page = payload(found, group_runs(found.runs), [{}], [None], "")
    (shown,) = [m for m in page["metrics"] if m["name"] == "test/sign"]
    assert shown["label"] == "right sign % ↑" and shown["better"] == 1 and "test/sign" in page["columns"]


def test_a_task_of_ones_own_is_learned_selected_and_shown(own: Path):
    result = run(
        prepare(
            compose(
                [
                    *("dataset=plane", "dataset._target_=own_task.CountPlane", "dataset.val_fraction=0.2"),
                    *("method=mse", "method.terms.mse._target_=own_task.Poisson", "trainer.batch_size=80", *SHORT),
                    *("evals.test.every=10", "evals.val.every=10", f"paths.outputs={own}"),
                ]
            )
        )
    )
    assert set(result.data["metrics"]["last"]) == {"test/deviance", "val/deviance", "epoch"}
    lines = [line for line in (result.folder / "metrics.jsonl").read_text().splitlines() if "val/deviance" in line]
    lowest = min(float(line.split('"val/deviance": ')[1].split(",")[0]) for line in lines)
    assert len(lines) > 1 and result.metric("val/deviance", "val_selected") == lowest
    assert "deviance" in show(result)
    found = collect([own / "runs"])
    page = payload(found, group_runs(found.runs), [{}], [None], "")
    assert page["main"] == "test/deviance" and page["columns"][:2] == ["val/deviance", "test/deviance"]
    table = Table.build(
        title="", results={"a": {0: result}}, columns=["test/deviance"], protocol="last", baseline=None, cost_row=None,
        teacher_row=False,
    )  # fmt: skip
    assert table.header() == ["", "deviance ↓", "n"]
