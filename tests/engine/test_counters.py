"""Examples, seconds and the bar of a run, with a clock that the test moves."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import kdx.engine.trainer
from kdx.engine.clock import Clock, Duration
from kdx.engine.trainer import Trainer

STEP, PAUSE, EVALUATION = 2.0, 1000.0, 7.0


class Hands:
    """A clock in place of the module `time`."""

    def __init__(self, begin: float):
        self.now = begin

    def perf_counter(self) -> float:
        return self.now

    process_time = perf_counter


class Heard:
    """A bar and a log that note what they are told."""

    position = None

    def __init__(self):
        self.began, self.counted, self.lines = -1, 0, list[dict[str, float]]()

    def start(self, done: int) -> None:
        self.began = done

    def advance(self, examples: int) -> None:
        self.counted += examples

    def show(self, line: dict[str, float]) -> None: ...

    def write(self, line: dict[str, float]) -> None:
        self.lines.append(line)


def watched(
    trainer: Trainer, begin: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[Hands, Heard, list[dict[str, Any]]]:
    """A trainer whose steps take two seconds and whose evaluations take seven; the states that it saves."""
    hands, heard, saved = Hands(begin), Heard(), list[dict[str, Any]]()
    monkeypatch.setattr(kdx.engine.trainer, "time", hands)
    update, evaluate = trainer.update, trainer.evaluate

    class Timed:
        def __call__(self, *given: Any) -> Any:
            hands.now += STEP
            return update(*given)

        def __getattr__(self, name: str) -> Any:
            return getattr(update, name)

    def slow() -> dict[str, float]:
        found = evaluate()
        hands.now += EVALUATION if found else 0.0
        return found

    class Kept:
        def save(self, state: dict[str, Any]) -> None:
            saved.append(state)

    trainer.update, trainer.evaluate = Timed(), slow  # pyright: ignore
    trainer.bar = trainer.log = heard  # pyright: ignore
    trainer.checkpoints, trainer.checkpoint_seconds = Kept(), 0.0  # pyright: ignore
    return hands, heard, saved


def play(steps: Iterator[None], hands: Hands, count: int | None = None) -> None:
    """Take some steps, or all that are left; others have their turns in between."""
    for number, _ in enumerate(steps, 1):
        if number == count:
            return
        hands.now += PAUSE


# 8 steps of 8 examples, 5 in an epoch of 40; a line every 3 steps; the test set at the end of each epoch
SECONDS = {3: 3 * STEP, 5: 5 * STEP + EVALUATION, 6: 6 * STEP + EVALUATION, 8: 8 * STEP + 2 * EVALUATION}


def check(lines: list[dict[str, float]], first: int) -> None:
    seconds = {line["step"]: line["time/seconds"] for line in lines}
    assert seconds == {step: value for step, value in SECONDS.items() if step > first}


def test_time_is_that_of_the_run_alone(tiny: Callable, built: Callable, monkeypatch: pytest.MonkeyPatch):
    trainer = built(tiny("method=alone", "evals.test.every=1"))
    hands, heard, _ = watched(trainer, 50.0, monkeypatch)
    play(trainer.steps(), hands)
    assert (trainer.examples, heard.began, heard.counted) == (64, 0, 64)
    assert trainer.seconds == SECONDS[8]
    assert trainer.step_seconds == 8 * STEP  # neither pauses nor evaluations
    check(heard.lines, 0)
    # between lines at steps 3, 6 and 8; an evaluation lies in the second and none in the first
    speeds = [line["time/examples_per_second"] for line in heard.lines if "time/examples_per_second" in line]
    assert speeds == [24 / (3 * STEP), 24 / (3 * STEP + EVALUATION), 16 / (2 * STEP)]
    assert trainer.together == 1


@pytest.mark.parametrize("killed_after", [2, 5, 7])
def test_a_resumed_run_counts_on(killed_after: int, tiny: Callable, built: Callable, monkeypatch: pytest.MonkeyPatch):
    config = tiny("method=alone", "evals.test.every=1")
    first = built(config, "first")
    first.together = 3
    hands, _, saved = watched(first, 50.0, monkeypatch)
    play(first.steps(), hands, killed_after)
    state = saved[-1]
    assert (state["step"], state["examples"]) == (killed_after, 8 * killed_after)
    assert state["step_seconds"] == killed_after * STEP
    second = built(config, "second")
    second.load(state)
    hands, heard, _ = watched(second, 9.0, monkeypatch)  # another process, whose clock begins elsewhere
    play(second.steps(), hands)
    assert (second.examples, heard.began, heard.counted) == (64, 8 * killed_after, 64 - 8 * killed_after)
    assert (second.seconds, second.step_seconds, second.together) == (SECONDS[8], 8 * STEP, 3)
    check(heard.lines, killed_after)
    assert all(line["time/examples_per_second"] > 0 for line in heard.lines if "time/examples_per_second" in line)


def test_the_examples_of_a_run_count_short_batches_as_they_are():
    # 3 batches of 16, 16 and 3 make an epoch of 35
    steps = Duration(epochs=2.34, steps=None, examples=None).in_steps(3, 16, 35)
    assert steps == 8
    assert Clock(steps, 3, None, batch_size=16, examples_per_epoch=35).examples == 2 * 35 + 32
    assert Clock(9, 3, None, batch_size=16, examples_per_epoch=35).examples == 3 * 35
