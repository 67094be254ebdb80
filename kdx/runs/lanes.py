"""Streams of a GPU for runs that train in turn in one process, so that their kernels overlap.

Each run has a stream of its own, its lane. What the runs share, the batch and the teacher's outputs, is made on a
further stream, the home: first it waits for all lanes, whose earlier work may still read memory that is used again,
and then all lanes wait for it. So a step is the shared work, followed by the runs' own work side by side.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")


class Streams(Protocol):
    """Makes streams, and lets one wait for another."""

    def new(self) -> Any: ...

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """Work in the block is queued on the stream."""
        ...

    def wait(self, stream: Any, other: Any) -> None:
        """Later work of a stream starts after the work that another one has now."""
        ...


class CudaStreams:
    """Streams of a GPU."""

    def __init__(self, device: torch.device):
        self.device = device

    def new(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    def on(self, stream: torch.cuda.Stream) -> AbstractContextManager[Any]:
        return torch.cuda.stream(stream)

    def wait(self, stream: torch.cuda.Stream, other: torch.cuda.Stream) -> None:
        stream.wait_stream(other)


class Lanes:
    """Lanes of some runs.

    Args:
        size: Number of runs.
        streams: Makes the streams.
    """

    def __init__(self, size: int, streams: Streams):
        self._streams, self._home = streams, streams.new()
        self._lanes: Sequence[Any] = [streams.new() for _ in range(size)]

    def turn(self, place: int) -> AbstractContextManager[Any]:
        """The block is a turn of the run at a place."""
        return self._streams.on(self._lanes[place])

    def shared(self, work: Callable[[], T]) -> T:
        """Do work whose results all runs read."""
        for lane in self._lanes:
            self._streams.wait(self._home, lane)
        with self._streams.on(self._home):
            value = work()
        for lane in self._lanes:
            self._streams.wait(lane, self._home)
        return value


class OneLane:
    """All work in one order, as on a CPU."""

    def turn(self, place: int) -> AbstractContextManager[Any]:
        return nullcontext()

    def shared(self, work: Callable[[], T]) -> T:
        return work()


def lanes_on(device: torch.device, size: int) -> Lanes | OneLane:
    """Lanes of some runs on a device; a single run needs none."""
    return Lanes(size, CudaStreams(device)) if device.type == "cuda" and size > 1 else OneLane()
