"""Learning rates of the published recipes over whole runs."""

import math

import pytest

from kdx.config.compose import compose
from kdx.core.schedule import Progress
from kdx.engine.optim.lr import Constant, Cosine, MultiStep, Piecewise
from kdx.runs.build import make


@pytest.fixture(scope="module")
def crd240() -> dict:
    return compose(["dataset=cifar100", "recipe=crd240"]).config


@pytest.mark.parametrize("epochs", [240, 24, 3], ids=["to the letter", "ten times faster", "3 epochs"])
def test_the_literatures_schedule(crd240: dict, epochs: int):
    schedule, lr, per_epoch = make(crd240["schedule"]), crd240["optimizer"]["lr"], math.ceil(50_000 / 64)
    length = crd240["trainer"]["schedule_epochs"]
    assert (lr, length, crd240["trainer"]["duration"]["epochs"]) == (0.05, 240, 240)
    steps = per_epoch * epochs
    first = {m: math.ceil(steps * m / 240) for m in (150, 180, 210)}
    # around each milestone, and once per epoch elsewhere
    asked = sorted({*range(0, steps, per_epoch), *(s + d for s in first.values() for d in (-1, 0, 1)), steps - 1})
    for step in asked:
        passed = sum(step >= s for s in first.values())
        assert lr * schedule(Progress(step, steps, length)) == pytest.approx(0.05 * 0.1**passed, rel=1e-12), step


def test_the_first_stage_of_ft_runs_at_0_01_for_30_epochs():
    config = compose(["dataset=cifar100", "recipe=crd240", "schedule=first_stage"]).config
    schedule, lr = make(config["schedule"]), config["optimizer"]["lr"]
    rates = [lr * schedule(Progress(epoch, 240, 240)) for epoch in (0, 29, 30, 149, 150, 179, 180, 209, 210, 239)]
    expected = [0.01, 0.01, 0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005, 0.00005, 0.00005]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_piecewise_factors_need_one_more_than_milestones_in_order():
    with pytest.raises(ValueError, match="needs 2 numbers, one more than schedule.milestones; it has 1"):
        Piecewise([10], [1.0], 0, 0)
    for milestones in ([20, 10], [10, 10]):
        with pytest.raises(ValueError, match="must increase"):
            Piecewise(milestones, [1.0, 0.5, 0.1], 0, 0)


def test_a_warm_up_rises_per_step_to_the_decay():
    for kind in (
        Constant(warmup_epochs=2, warmup_start=0.1),
        MultiStep([4], 0.1, warmup_epochs=2, warmup_start=0.1),
        Piecewise([4], [1.0, 0.1], warmup_epochs=2, warmup_start=0.1),
        Cosine(end=0.0, warmup_epochs=2, warmup_start=0.1),
    ):
        trace = [kind(Progress(step, 60, 6)) for step in range(60)]
        assert trace[:20] == pytest.approx([0.1 + 0.9 * step / 20 for step in range(20)])
        assert trace[20] == pytest.approx(1.0)


def test_cosine_reaches_its_end_at_the_end():
    trace = [Cosine(end=0.2, warmup_epochs=1, warmup_start=0.0)(Progress(step, 50, 5)) for step in range(51)]
    assert trace[10:] == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * i / 40)) / 2 for i in range(41)])


def test_constant():
    assert {Constant(0.0, 0.0)(Progress(step, 9, 3)) for step in range(9)} == {1.0}
