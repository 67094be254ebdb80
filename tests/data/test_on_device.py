"""Transfer to the device keeps batches and order, and reads nothing ahead on a CPU."""

from dataclasses import fields

import pytest
import torch

from kdx.core.batch import Batch
from kdx.data.on_device import OnDevice, on_device

CPU = torch.device("cpu")


def batch(number: int) -> Batch:
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(number))
    index = torch.arange(3) + number
    return Batch.of_classes(
        x.contiguous(memory_format=torch.channels_last), index + 1, index, x[:, 0, 0], (x + 1, x + 2), index, 7
    )


def test_tensors_are_all_that_a_batch_has_but_its_numbers_of_views():
    of = batch(0)
    held = [of.inputs, *of.targets.values(), of.index, *of.views]
    assert {f.name for f in fields(Batch)} == {"inputs", "targets", "index", "views", "view", "whole"}
    assert len(held) == 6 and all(a is b for a, b in zip(of.tensors, held, strict=True))


def test_on_a_cpu_nothing_is_copied_and_nothing_read_ahead():
    batches, read = [batch(i) for i in range(3)], []
    source = (read.append(b) or b for b in batches)
    for count, (mine, given) in enumerate(zip(on_device(source, CPU), batches, strict=False), 1):
        assert all(a is b for a, b in zip(mine.tensors, given.tensors, strict=True))
        assert mine.view is given.view and mine.whole == given.whole and len(read) == count


def test_a_loader_begins_where_it_is_asked_to():
    class Numbers:
        steps_per_epoch = last_batch = examples_per_epoch = 5

        def epoch(self, epoch: int, start: int = 0):
            return (batch(10 * epoch + step) for step in range(start, 5))

    loader = OnDevice(Numbers(), CPU)
    assert loader.steps_per_epoch == 5
    assert [int(b.index[0]) for b in loader.epoch(2, 3)] == [23, 24]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_on_a_gpu_they_arrive_whole_while_work_is_done(count: int):
    device = torch.device("cuda")
    busy = torch.randn(512, 512, device=device)
    sums, batches = [], [batch(i) for i in range(count)]
    for mine in on_device(iter(batches), device):
        assert all(t.is_cuda for t in mine.tensors)
        for _ in range(5):
            busy = busy @ busy * 1e-3
        sums.append(mine.map(torch.clone))  # queued after the work, so that reused memory would be visible
    assert len(sums) == count
    for mine, given in zip(sums, batches, strict=True):
        assert mine.view is given.view and mine.whole == given.whole
        assert all(torch.equal(a.cpu(), b) for a, b in zip(mine.tensors, given.tensors, strict=True))
