"""The task of several labels."""

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.losses.logits.binary import BinaryKL
from kdx.losses.logits.kd import KD
from kdx.losses.logits.labels import LabelCrossEntropy
from kdx.losses.logits.regression import SquaredError
from kdx.metrics.multilabel import LabelDecisions
from kdx.tasks.classes import Classes
from kdx.tasks.labels import Labels
from kdx.tasks.values import Values


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def batch(size: int = 40, labels: int = 4) -> tuple[Outputs, Batch]:
    presence = (torch.rand(size, labels) < 0.3).float()
    given = Batch(torch.zeros(size, 1), {"presence": presence}, torch.arange(size))
    return Outputs(torch.randn(size, labels) + presence), given


def test_the_training_metric_is_the_hamming_score_of_the_batch():
    outputs, given = batch()
    numerator, denominator = Labels(4).training_metric(outputs, given)["hamming"]
    metric = LabelDecisions(0.0)
    metric.update(outputs.logits, given.target("presence"))
    assert float(numerator / denominator) == pytest.approx(metric.compute()["hamming"])


def test_all_metrics_that_it_computes_are_described():
    task, (outputs, given) = Labels(4), batch()
    metrics = [(m, task.pair(outputs, given)) for m in task.metrics().values()]
    found: set[str] = set()
    for metric, pair in [*metrics, (task.fidelity(), (outputs.logits, outputs.logits))]:
        metric.update(*pair)
        found |= metric.compute().keys()
    assert found == {metric.name for metric in (*task.described, *task.fidelity().described)}
    assert task.primary in task.described


def test_networks_together_predict_the_mean_of_their_probabilities():
    logits = [3 * torch.randn(5, 4).double() for _ in range(3)]
    together = Labels(4).together(logits).sigmoid()
    torch.testing.assert_close(together, torch.stack([z.sigmoid() for z in logits]).mean(0))
    sure = torch.tensor([[-200.0, 200.0]])
    torch.testing.assert_close(Labels(2).together([sure, sure]), sure)


def test_probabilities_and_labels_are_kept():
    task, (outputs, given) = Labels(4), batch()
    torch.testing.assert_close(task.predictions(outputs)["probability"], outputs.logits.sigmoid())
    assert torch.equal(task.kept_targets(given)["presence"], given.target("presence"))


def test_parts_fit_the_tasks_that_have_the_targets_they_read():
    tasks = {"classes": Classes(5), "values": Values((0.0,), (1.0,)), "labels": Labels(5)}
    expected = {
        KD: {"classes"},
        SquaredError: {"values"},
        LabelCrossEntropy: {"labels"},
        BinaryKL: {"classes", "labels"},
    }
    for part, fits in expected.items():
        assert {kind for kind, task in tasks.items() if task.fits(part) is None} == fits
    assert Labels(5).fits(KD) == "KD needs a task with classes, and this task has labels"


def test_made_up_targets_hold_and_do_not_hold():
    presence = Labels(3).made_up(4)["presence"]
    assert presence.shape == (4, 3) and (presence.mean(0) == 0.5).all()
