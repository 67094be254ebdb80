"""A student on other data sets: against counts, and over several processes."""

from dataclasses import replace

import pytest
import torch
from digit_domains import ALL
from test_dealt import PLACE, hands
from torch import nn

from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.evals import domains
from kdx.evals.domains import Domains
from kdx.tasks.classes import Classes


class Net(nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        self.weight = torch.randn(192, 10, generator=torch.Generator().manual_seed(seed))

    def forward(self, inputs):
        return Outputs(inputs.flatten(1) @ self.weight)


SETS = {"grey": replace(ALL, domains=["grey"]), "colour": replace(ALL, domains=["colour"])}


def evaluator(num_classes: int = 10) -> Domains:
    return Domains(loaders={}, device=PLACE, task=Classes(num_classes), sets=SETS, every=None)


def test_each_set_is_measured_on_its_whole_test_set_with_its_own_statistics():
    nets = {"student": Net(1), "teacher": Net(2)}
    found = evaluator().run(nets)
    for name, of in SETS.items():
        test = of.load()[1]
        inputs = (test.images.float().permute(0, 3, 1, 2) / 255 - 0.3) / 0.4
        student, teacher = (net(inputs).logits.argmax(1) for net in nets.values())
        assert found[f"domains/{name}/top1"] == pytest.approx(float((student == test.labels).double().mean()), abs=2e-3)
        assert found[f"domains/{name}/agreement"] == pytest.approx(
            float((student == teacher).double().mean()), abs=2e-3
        )
    assert found["domains/grey/top1"] != found["domains/colour/top1"]
    alone = evaluator().run({"student": Net(1)})
    assert alone == {name: value for name, value in found.items() if name.endswith("top1")}


@pytest.mark.parametrize("size", [2, 3])
def test_the_sum_of_the_shares_is_the_whole(monkeypatch, size):
    monkeypatch.setattr(domains, "BATCH", 300)
    nets = {"student": Net(1), "teacher": Net(2)}
    alone = evaluator().run(nets)
    one = evaluator()
    one._sets = {"grey": SETS["grey"]}  # the simulation gathers one set at a time
    assert hands(monkeypatch, size, lambda: one.run(nets)) == {n: v for n, v in alone.items() if "/grey/" in n}


def test_a_data_set_of_other_classes_is_refused():
    with pytest.raises(UserError, match="the data set 'grey' has 10 classes, the run's own has 7 classes"):
        evaluator(7)
