"""Durations in each unit, and schedules of due actions."""

import math

import pytest

from kdx.core.errors import UserError
from kdx.engine.clock import Clock, Duration


def duration(**given) -> Duration:
    return Duration(**{"epochs": None, "steps": None, "examples": None, **given})


@pytest.mark.parametrize("given", [{}, {"epochs": 1, "steps": 5}, {"epochs": 1.0, "steps": 5, "examples": 9}])
def test_a_duration_has_exactly_one_unit(given: dict):
    with pytest.raises(UserError, match="exactly one of epochs, steps, examples; found " + ("epochs" if given else "")):
        duration(**given)


@pytest.mark.parametrize(
    "given, steps",
    [
        ({"steps": 7}, 7),
        ({"epochs": 3}, 90),
        ({"epochs": 0.1}, 3),
        ({"epochs": 0.11}, 4),
        ({"epochs": 1e-9}, 1),
        ({"examples": 64}, 1),
        ({"examples": 65}, 2),
        ({"examples": 1}, 1),
    ],
)
def test_every_unit_in_steps(given: dict, steps: int):
    assert duration(**given).in_steps(steps_per_epoch=30, batch_size=64, examples_per_epoch=30 * 64) == steps


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size, batch_size", [(50, 64), (50, 32), (64, 32), (65, 32), (7, 3), (3, 1)])
def test_a_duration_in_examples_ends_at_the_first_step_that_reaches_it(size: int, batch_size: int, drop_last: bool):
    batches = [batch_size] * (size // batch_size) + ([size % batch_size] if size % batch_size and not drop_last else [])
    if not batches:
        return
    for examples in range(1, 4 * size + 1):
        seen = steps = 0
        while seen < examples:
            seen += batches[steps % len(batches)]
            steps += 1
        found = duration(examples=examples).in_steps(len(batches), batch_size, sum(batches))
        assert found == steps, examples


@pytest.mark.parametrize("every", [None, 0.1, 0.5, 1, 1.5, 7])
@pytest.mark.parametrize("steps_per_epoch", [1, 5, 782])
def test_due_once_for_each_multiple_and_at_the_end(every: float | None, steps_per_epoch: int):
    clock = Clock(int(3.4 * steps_per_epoch) + 1, steps_per_epoch, None)
    due = []
    while not clock.done:
        clock.step += 1
        if clock.due(every):
            due.append(clock.step)
    expected = {clock.steps}
    if every is not None:
        multiples = range(1, 1 + math.floor(clock.steps / steps_per_epoch / every + 1e-9))
        expected |= {math.ceil(k * every * steps_per_epoch - 1e-6) for k in multiples}
    assert due == sorted(expected)


def test_position_and_progress():
    clock = Clock(10, 4, schedule_epochs=240)
    clock.step = 9
    assert clock.position == (2, 1) and clock.epochs == 2.25
    assert clock.progress().fraction == 0.9 and clock.progress().exact_epoch == pytest.approx(216)
    assert Clock(10, 4, None).progress().epochs == 2.5
