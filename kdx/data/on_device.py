"""Transfer of batches from the loader to the device."""

from collections.abc import Iterable, Iterator

import torch

from kdx.core.batch import Batch
from kdx.data.loaders import Epochs, TrainLoader
from kdx.data.resident import ResidentLoader, can_stay


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the same batches, in order, on a device.

    On a GPU the next batch is copied from pinned memory on a separate stream while the current one is processed, so one
    batch is read ahead. On a CPU nothing is read ahead and nothing is copied.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    stream, coming = torch.cuda.Stream(device), None
    for batch in batches:
        sent = _send(batch, device, stream)
        if coming is not None:
            yield _receive(*coming)
        coming = sent
    if coming is not None:
        yield _receive(*coming)


def _send(batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event]:
    with torch.cuda.stream(stream):
        sent = batch.map(torch.Tensor.pin_memory).to(device)
        arrived = torch.cuda.Event()
        arrived.record(stream)
        return sent, arrived


def _receive(batch: Batch, arrived: torch.cuda.Event) -> Batch:
    stream = torch.cuda.current_stream(batch.device)
    stream.wait_event(arrived)
    for tensor in batch.tensors:
        tensor.record_stream(stream)  # keeps the allocator from reusing the memory while this stream still reads
    return batch


def device_loader(loader: Epochs, device: torch.device) -> Epochs:
    """A training loader with its batches on a device: made there on a GPU where its images can stay, else copied."""
    if device.type == "cuda" and isinstance(loader, TrainLoader) and can_stay(loader):
        return ResidentLoader(loader, device)
    return OnDevice(loader, device)


class OnDevice:
    """A training loader with its batches on a device, see `on_device`."""

    def __init__(self, loader: Epochs, device: torch.device):
        self.loader, self.device = loader, device
        self.steps_per_epoch, self.last_batch = loader.steps_per_epoch, loader.last_batch
        self.examples_per_epoch = loader.examples_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch (counted from 0) from step `start` on."""
        return on_device(self.loader.epoch(epoch, start), self.device)
