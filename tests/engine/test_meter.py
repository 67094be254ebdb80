"""Means of terms with deferred reads, and the step at which a term became non-finite."""

from dataclasses import replace

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Step
from kdx.engine.record.meter import Meter, NonFiniteError
from kdx.tasks.classes import Classes

BATCH = Batch.of_classes(torch.zeros(4, 1), torch.tensor([0, 1, 1, 0]), torch.arange(4))


def step(ce: float, kd: float) -> Step:
    logits = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0], [1.0, 0]])  # 3 of 4 are correct
    terms = {"ce": torch.tensor(ce), "kd": torch.tensor(kd)}
    return Step(terms, {"loss": torch.tensor(ce + kd)}, Outputs(logits))


def test_means_since_the_last_reading():
    meter = Meter(Classes(2))
    assert meter.read() == {}
    for n in range(3):
        meter.add(n, step(n, 2.0), BATCH)
    expected = {"train/terms/ce": 1.0, "train/terms/kd": 2.0, "train/loss": 3.0, "train/top1": 0.75}
    assert meter.read() == expected
    assert meter.read() == {}
    meter.add(3, step(8.0, 2.0), BATCH)
    assert meter.read()["train/terms/ce"] == 8.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_term_and_the_very_step_are_named(bad: float):
    meter = Meter(Classes(2))
    for n in range(10, 20):
        meter.add(n, step(1.0, bad if n >= 13 else 1.0), BATCH)
        if n == 11:
            meter.check()
    with pytest.raises(NonFiniteError, match=f"the term 'kd' is {bad} at step 13;"):
        meter.read()


def test_it_resumes_in_the_middle():
    whole, first, second = Meter(Classes(2)), Meter(Classes(2)), Meter(Classes(2))
    for n in range(4):
        whole.add(n, step(n**2, 1.0), BATCH)
        first.add(n, step(n**2, 1.0), BATCH) if n < 2 else None
    second.load_state_dict(first.state_dict())
    for n in (2, 3):
        second.add(n, step(n**2, 1.0), BATCH)
    assert second.read() == whole.read()


def test_a_state_of_bad_numbers_is_not_saved():
    meter = Meter(Classes(2))
    meter.add(0, step(float("nan"), 1.0), BATCH)
    with pytest.raises(NonFiniteError, match="'ce'"):
        meter.state_dict()


def test_accuracy_counts_labelled_examples_alone():
    some = BATCH.with_targets(labels=torch.tensor([0, -1, 0, -1]))  # one correct, one wrong
    none = BATCH.with_targets(labels=torch.full((4,), -1))
    meter = Meter(Classes(2))
    for n, batch in enumerate((BATCH, some, none)):
        meter.add(n, step(1.0, 1.0), batch)
    read = meter.read()
    assert read["train/top1"] == (3 + 1) / (4 + 2) and read["train/terms/ce"] == 1.0
    meter.add(3, step(1.0, 1.0), none)
    assert "train/top1" not in meter.read()


def test_a_short_batch_weighs_what_it_holds():
    short = Batch.of_classes(torch.zeros(1, 1), torch.tensor([1]), torch.arange(1))
    wrong = Step({"ce": torch.tensor(1.0)}, {}, Outputs(torch.tensor([[1.0, 0]])))
    meter = Meter(Classes(2))
    for n in range(5):
        meter.add(n, replace(step(1.0, 1.0), terms=wrong.terms, report={}), BATCH)
    meter.add(5, wrong, short)
    assert meter.read()["train/top1"] == 15 / 21
