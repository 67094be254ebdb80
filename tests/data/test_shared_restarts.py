"""How often a shared loader starts its source again."""

from collections.abc import Iterator

import torch

from kdx.core.batch import Batch
from kdx.data.shared_loader import SharedLoader


class Counted:
    steps_per_epoch, examples_per_epoch, last_batch = 4, 8, 2

    def __init__(self):
        self.starts: list[tuple[int, int]] = []
        self.read = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        self.starts.append((epoch, start))
        for step in range(start, self.steps_per_epoch):
            self.read += 1
            labels = torch.full((2,), 10 * epoch + step)
            yield Batch.of_classes(torch.full((2, 1), float(10 * epoch + step)), labels, torch.arange(2))


def test_runs_in_step_share_one_pass_of_the_source():
    source, seen = Counted(), list[Batch]()
    shared = SharedLoader(source, seen.append)  # pyright: ignore[reportArgumentType]
    for epoch in range(2):
        for batches in zip(*(shared.epoch(epoch) for _ in range(3)), strict=True):
            assert batches[0] is batches[1] is batches[2]
    assert source.starts == [(0, 0), (1, 0)] and source.read == len(seen) == 8


def test_a_run_at_another_step_restarts_the_source_for_itself_and_the_others():
    source, seen = Counted(), list[Batch]()
    shared = SharedLoader(source, seen.append)  # pyright: ignore[reportArgumentType]
    ahead, behind = shared.epoch(0), shared.epoch(0, start=2)
    order = [next(run).labels[0].item() for run in (ahead, behind, ahead, behind)]
    assert order == [0, 2, 1, 3]
    assert source.starts == [(0, 0), (0, 2), (0, 1), (0, 3)]


def test_a_batch_that_was_changed_in_place_is_read_anew():
    source = Counted()
    shared = SharedLoader(source, lambda batch: None)  # pyright: ignore[reportArgumentType]
    first, second = shared.epoch(0), shared.epoch(0)
    next(first).inputs.add_(1)
    assert next(second).inputs.tolist() == [[0.0], [0.0]]
    assert source.starts == [(0, 0), (0, 0)]
