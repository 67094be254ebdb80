"""Schedules against their formulas, played at the recipe's length and faster."""

import math

import pytest

from kdx.core.schedule import Between, Cosine, EpochRamp, GaussianRamp, Linear, MultiStep, Progress, Ramp, WarmUp, at


def play(schedule, steps: int, epochs: float) -> list[float]:
    return [schedule(Progress(step, steps, epochs)) for step in range(steps)]


def test_warm_up_is_that_of_dkd():
    per_epoch = 7
    ramp = play(WarmUp(to=1.5, epochs=20), 40 * per_epoch, 40)
    # published code: min(epoch / warmup, 1), epochs counted from 1
    assert ramp == pytest.approx([1.5 * min(epoch / 20, 1) for epoch in range(1, 41) for _ in range(per_epoch)])


def test_a_warm_up_of_no_epochs_is_a_constant():
    assert set(play(WarmUp(to=0.7, epochs=0), 10, 5)) == {0.7}


@pytest.mark.parametrize("steps_per_epoch", [1, 13, 782])
@pytest.mark.parametrize("epochs", [1, 10, 37.5, 240])
def test_milestones_decay_at_the_first_step_after_their_epochs(steps_per_epoch: int, epochs: float):
    # a run of `epochs` epochs that plays a schedule of 240
    steps = math.ceil(steps_per_epoch * epochs)
    trace = play(MultiStep([150, 180, 210], 0.1), steps, 240)
    drops = [step for step in range(1, steps) if trace[step] < trace[step - 1]]
    expected = [math.ceil(steps * m / 240 - 1e-9) for m in (150, 180, 210)]
    assert drops == sorted({step for step in expected if step < steps})
    assert trace[0] == 1.0 and bool(drops) == (steps > 1)
    assert trace[-1] == pytest.approx(0.1 ** sum(e <= steps - 1 for e in expected))


def test_milestones_in_epochs_of_the_run_itself():
    trace = play(MultiStep([2, 4], 0.5, value=8.0), 6 * 5, 6)
    assert trace == [8.0] * 10 + [4.0] * 10 + [2.0] * 10


@pytest.mark.parametrize("speed", [1, 3])
def test_linear_and_cosine_by_their_formulas(speed: int):
    steps = 60 // speed
    linear = play(Linear(4.0, 1.0, until=20, since=10), steps, 30)
    cosine = play(Cosine(4.0, 1.0, until=20, since=10), steps, 30)
    for step in range(steps):
        x = min(max((30 * step / steps - 10) / 10, 0), 1)
        assert linear[step] == pytest.approx(4 - 3 * x, abs=1e-12)
        assert cosine[step] == pytest.approx(1 + 3 * (1 + math.cos(math.pi * x)) / 2, abs=1e-12)


@pytest.mark.parametrize("epochs", [3, 80])
def test_a_ramp_goes_by_the_run_whatever_its_epochs(epochs: int):
    trace = play(Ramp(2.0, 0.0, until=0.75, since=0.25), 80, epochs)
    # max(0, 2 (1 - x)) with x the share of the middle half
    assert trace == pytest.approx([2 * (1 - min(max((s / 80 - 0.25) / 0.5, 0), 1)) for s in range(80)], abs=1e-12)
    with pytest.raises(ValueError, match="must end after it begins"):
        Ramp(1.0, 0.0, until=0.5, since=0.5)


def test_between_is_open_at_its_end():
    trace = play(Between(2.5, since=1, until=3), 4 * 3, 4)
    assert trace == [0.0] * 3 + [2.5] * 6 + [0.0] * 3
    assert set(play(Between(2.5), 8, 4)) == {2.5}


def test_a_schedule_must_end_after_it_begins():
    for kind in (Linear, Cosine):
        with pytest.raises(ValueError, match="since 5, until 5"):
            kind(1.0, 0.0, until=5, since=5)


def test_epochs_are_whole_at_their_first_step():
    # 240 epochs of 782 steps: no rounding puts the first step of an epoch into the one before
    assert [Progress(e * 782, 240 * 782, 240).epoch for e in range(240)] == list(range(240))
    assert [Progress(e * 782 - 1, 240 * 782, 240).epoch for e in range(1, 240)] == list(range(239))


def test_numbers_are_constant_schedules():
    assert at(0.3, Progress(5, 10, 1)) == 0.3
    assert at(Linear(0.0, 1.0, until=2), Progress(5, 10, 2)) == 0.5
    assert Progress(0, 0, 1).fraction == 0.0


def test_ramp_up_is_gaussian_in_whole_epochs():
    ramp = GaussianRamp(to=2.0, epochs=4.0)
    values = [ramp(Progress(step, 20, 10)) for step in (0, 1, 2, 4, 8, 12)]
    expected = [2 * math.exp(-5 * (1 - e / 4) ** 2) for e in (0, 0, 1, 2, 4)]
    assert values == pytest.approx([*expected, 2.0])


def test_over_the_run_it_grows_by_equal_steps_to_its_end():
    grow = EpochRamp(to=0.8)
    assert [grow(Progress(step, 8, 4)) for step in range(8)] == pytest.approx([0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8])
    assert grow(Progress(7, 8, 1.6)) == pytest.approx(0.8)
