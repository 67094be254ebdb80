"""Batches made on the device are those of the loader on the CPU, bit for bit, without waiting for the device."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from kdx.core.batch import Batch
from kdx.data.loaders import TrainLoader
from kdx.data.on_device import OnDevice, device_loader
from kdx.data.resident import ResidentLoader, can_stay
from kdx.data.sets import TensorSet
from kdx.data.views.augment import PLAIN, MultiView
from kdx.data.views.crop import PadCrop, ResizedCrop
from kdx.data.views.mixing import Mixing
from kdx.runs.checks.cuda_graph import WAITING
from kdx.tasks.classes import image_classes

CPU = torch.device("cpu")
STANDARD = replace(PLAIN, crop=PadCrop(pad=2), flip=0.5)
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
WAYS = {
    "crop and flip": STANDARD,
    "crop": replace(PLAIN, crop=PadCrop(pad=3)),
    "flip": replace(PLAIN, flip=0.3),
    "always flipped": replace(PLAIN, flip=1.0),
    "nothing": PLAIN,
    "cycle": replace(STANDARD, cycle=2),
}


def loader(augmentation=STANDARD, size=23, channels=3, channels_last=True, drop_last=False, **changed: Any):
    draws = np.random.default_rng(0)
    images = torch.from_numpy(draws.integers(0, 256, (size, 6, 5, channels), dtype=np.uint8))
    if changed.get("floats"):
        images = images.float() / 255
    # positions in a larger source, as a subset has them
    origin = torch.randperm(size + 9, generator=torch.Generator().manual_seed(1))[:size]
    data = TensorSet(images, torch.arange(size) % 4, 1 if changed.get("floats") else 255, origin, size + 9)
    spec = image_classes(4, (channels, 6, 5), size, MEAN[:channels], STD[:channels])
    return TrainLoader(data, spec, augmentation, 5, 7, None, drop_last, channels_last)


def same(ours: Batch, theirs: Batch) -> None:
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert mine.dtype == other.dtype and mine.stride() == other.stride() and torch.equal(mine, other)
    assert (ours.view is None) == (theirs.view is None) and ours.whole == theirs.whole
    assert ours.view is None or theirs.view is None or torch.equal(ours.view, theirs.view)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [{}, {"channels": 1}, {"channels_last": False}, {"drop_last": True}])
def test_pixels_are_the_cpus(way: str, shape: dict[str, Any]):
    plain = loader(WAYS[way], **shape)
    resident = ResidentLoader(plain, CPU)
    for epoch in (0, 1, 3):
        ours, theirs = list(resident.epoch(epoch)), list(plain.epoch(epoch))
        assert len(ours) == len(theirs) == resident.steps_per_epoch
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other)
    assert [resident.last_batch, resident.examples_per_epoch] == [plain.last_batch, plain.examples_per_epoch]


def test_a_resumed_epoch_goes_on_where_it_stopped():
    plain = loader()
    resident = ResidentLoader(plain, CPU)
    for mine, other in zip(resident.epoch(2, 3), list(plain.epoch(2))[3:], strict=True):
        same(mine, other)


def test_every_byte_has_the_value_of_the_cpus_normalisation():
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 1, 1, 3).contiguous()
    data = TensorSet(images, torch.zeros(256, dtype=torch.int64), 255)
    plain = TrainLoader(data, image_classes(1, (3, 1, 1), 256, MEAN, STD), PLAIN, 256, 0, None, False, True)
    (mine,), (other,) = ResidentLoader(plain, CPU).epoch(0), plain.epoch(0)
    same(mine, other)


class Waits(TorchFunctionMode):
    """Notes calls that wait for a device."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITING:
            self.found.append(WAITING[func])
        return func(*args, **(kwargs or {}))


def test_a_step_makes_its_batch_without_waiting_for_the_device():
    resident = ResidentLoader(loader(), CPU)
    waits = Waits()
    with waits:
        list(resident.epoch(0))
    assert waits.found == []
    with waits:
        torch.ones(1).item()
    assert waits.found == ["Tensor.item"]


@pytest.mark.parametrize("method", ["kd", "dkd", "supervised"])
def test_whole_steps_wait_for_the_device_at_lines_of_the_log_alone(tiny, built, method: str):
    trainer = built(tiny(f"method={method}", "trainer.log_steps=4", "trainer.duration.steps=8"))
    trainer.loader, trainer.evaluators = ResidentLoader(trainer.loader, CPU), {}
    waits, at = Waits(), {}
    trainer.save = lambda: None
    with waits:
        for _ in trainer.steps():
            if waits.found:
                at[trainer.clock.step] = list(waits.found)
                waits.found.clear()
    assert list(at) == [4], at  # the generator ends with the last step


def test_what_changes_pixels_otherwise_is_not_kept_on_the_device():
    assert can_stay(loader())
    resized = ResizedCrop(scale=(0.5, 1.0), ratio=(1.0, 1.0))
    mixed = Mixing(mixup_alpha=1.0, cutmix_alpha=0.0, prob=1.0, switch_prob=0.0, mode="batch", label_smoothing=0.0)
    for augmentation in (
        replace(PLAIN, crop=resized),
        MultiView(**{f: getattr(STANDARD, f) for f in ("crop", "flip", "policy", "mixing", "cycle")}, further=[PLAIN]),
        replace(STANDARD, mixing=mixed),
    ):
        assert not can_stay(loader(augmentation))
    assert not can_stay(loader(floats=True))
    assert isinstance(device_loader(loader(), CPU), OnDevice)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("way", WAYS)
def test_on_a_gpu_pixels_are_the_cpus(way: str):
    plain, device = loader(WAYS[way]), torch.device("cuda")
    resident = device_loader(plain, device)
    assert isinstance(resident, ResidentLoader)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(resident.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for mine, other in zip(batches, plain.epoch(1), strict=True):
        same(mine.to("cpu"), other)
