"""Runs on streams of their own: who waits for whom, by clocks, since a CPU has no streams."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from kdx.core.errors import UserError
from kdx.pool.run_fused import run_together
from kdx.runs.lanes import Lanes, OneLane, lanes_on


class Clocks:
    """Streams as vector clocks: an event happens before another one if its clock is nowhere larger."""

    def __init__(self):
        self.clocks: list[dict[int, int]] = []
        self.current: int | None = None

    def new(self) -> int:
        self.clocks.append({len(self.clocks): 0})
        return len(self.clocks) - 1

    @contextmanager
    def on(self, stream: int) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def wait(self, stream: int, other: int) -> None:
        for name, time in self.clocks[other].items():
            self.clocks[stream][name] = max(time, self.clocks[stream].get(name, 0))

    def event(self) -> dict[int, int]:
        """Queue work on the current stream; its time."""
        assert self.current is not None, "work outside all streams"
        self.clocks[self.current][self.current] += 1
        return dict(self.clocks[self.current])


def before(first: dict[int, int], later: dict[int, int]) -> bool:
    return all(time <= later.get(name, 0) for name, time in first.items())


def test_runs_read_what_is_shared_after_it_is_made_and_before_it_is_made_again():
    clocks = Clocks()
    lanes = Lanes(3, clocks)
    made: list[dict[int, int]] = []
    reads: list[list[dict[int, int]]] = []
    for step in range(4):
        reads.append([])
        for turn in range(3):
            place = (turn + step) % 3  # another run is first in each step
            with lanes.turn(place):
                if turn == 0:
                    made.append(lanes.shared(clocks.event))
                reads[-1].append(clocks.event())
    for step in range(4):
        assert all(before(made[step], read) for read in reads[step])
        if step:
            assert all(before(read, made[step]) for read in reads[step - 1])
        # the runs themselves do not wait for each other
        assert not any(before(a, b) for a in reads[step] for b in reads[step] if a is not b)


def test_work_of_a_turn_may_be_shared_in_its_middle():
    clocks = Clocks()
    lanes = Lanes(2, clocks)
    with lanes.turn(0):
        own = clocks.event()
        teacher = lanes.shared(clocks.event)
        rest = clocks.event()
    assert before(own, teacher) and before(teacher, rest)


def test_a_cpu_and_a_single_run_have_one_order():
    assert isinstance(lanes_on(torch.device("cpu"), 4), OneLane)
    assert OneLane().shared(lambda: 5) == 5


def test_a_device_that_is_not_there_is_reported_by_each_run(tiny):
    configs = [tiny("method=supervised", f"seed={seed}", "data_seed=0") for seed in (0, 1)]
    lost = [replace(config, trainer={**config.trainer, "device": "cuda:99"}) for config in configs]
    found = dict(run_together(lost))
    assert len(found) == 2 and all(isinstance(of, UserError) and "cuda:99" in str(of) for of in found.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_fused_runs_end_as_they_do_alone(tiny):
    def results(folder: str, together: bool) -> list[float]:
        own = [f"paths.outputs={folder}", "trainer.device=cuda", "data_seed=0", "trainer.duration.steps=20"]
        configs = [tiny("method=kd", f"seed={seed}", *own) for seed in range(4)]
        groups = [configs] if together else [[config] for config in configs]
        found = [of for group in groups for _, of in sorted(run_together(group), key=lambda pair: pair[0])]
        return [of.metric("test/nll") for of in found]  # pyright: ignore

    assert results("together", True) == pytest.approx(results("alone", False), rel=1e-3)
