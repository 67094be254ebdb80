"""The prediction of a network with NaN logits is no class, wherever predictions are counted."""

import math

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.evals.robustness import Robustness
from kdx.methods.generator_distill import _agreement
from kdx.metrics.accuracy import correct
from kdx.metrics.deviation import Deviation
from kdx.tasks.classes import Classes

LABELS = torch.zeros(4, dtype=torch.long)
BROKEN = torch.full((4, 10), math.nan)  # argmax gives 0, which is the label of each example


class Constant(nn.Module):
    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> Outputs:
        return Outputs(self.logits + 0 * x.flatten(1).sum(1, keepdim=True))


def test_a_prediction_from_nan_is_not_correct():
    assert not correct(BROKEN, LABELS).any()
    assert correct(torch.zeros(4, 10), LABELS).all()
    assert not correct(torch.zeros(4, 10), LABELS - 1).any()  # unlabelled


def test_training_accuracy_counts_none():
    batch = Batch.of_classes(torch.zeros(4, 1), LABELS, torch.arange(4))
    (hits, seen) = Classes(10).training_metric(Outputs(BROKEN), batch)["top1"]
    assert (int(hits), int(seen)) == (0, 4)


def test_networks_that_both_give_nan_do_not_agree():
    assert float(_agreement(BROKEN, BROKEN)) == 0.0
    deviation = Deviation()
    deviation.update(BROKEN, BROKEN)
    assert deviation.compute()["agreement"] == 0.0


@pytest.mark.parametrize(("logits", "right"), [(BROKEN, 0.0), (torch.eye(10)[LABELS], 1.0)])
def test_robust_accuracy_counts_none(logits, right):
    batch = Batch.of_classes(torch.zeros(4, 1), LABELS, torch.arange(4))
    still = lambda network, loss, inputs, mean, std: inputs  # noqa: E731
    attacks = {"none": still}
    evaluator = Robustness(loaders={"test": [batch]}, device=torch.device("cpu"), task=Classes(10), split="test", model="student", attacks=attacks, mean=[0.0], std=[1.0], every=None)  # fmt: skip # pyright: ignore # noqa: E501
    assert evaluator.run({"student": Constant(logits)}) == {"robustness/test/none": right}
