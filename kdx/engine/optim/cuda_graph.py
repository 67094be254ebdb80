"""A whole step as a CUDA graph: recorded once, then replayed with one call instead of a thousand launches."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from kdx.core.errors import UserError
from kdx.core.schedule import Progress, Watched
from kdx.core.types import Batch, Step
from kdx.engine.optim.update import Joint

WARM_UP = 3  # steps before a recording, in which libraries choose their algorithms and optimisers make their states
Read = tuple[Callable[[Progress], Any], Any]


class Recorder(Protocol):
    """How steps are recorded."""

    def warm(self, take: Callable[[], Step]) -> Step:
        """Take a step at once, as one that comes before a recording."""
        ...

    def record(self, take: Callable[[], Step]) -> Callable[[], Step]:
        """Record a step without taking it; what is returned takes it, from the same tensors into the same tensors."""
        ...


class CudaRecorder:
    """Records on a GPU. Dropout draws on: a graph moves the device's own stream of random numbers as the step does."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)

    def warm(self, take: Callable[[], Step]) -> Step:
        # on a stream of its own, as nothing can be recorded on the default one
        now = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            step = take()
        now.wait_stream(self._stream)
        return step

    def record(self, take: Callable[[], Step]) -> Callable[[], Step]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                step = take()
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise UserError(f"trainer.cuda_graph=true: this step cannot be recorded, {why}; leave it out") from error

        def replay() -> Step:
            graph.replay()
            return step

        return replay


class Graphed:
    """Replays the steps of an update; an update itself.

    The first steps are taken as ever, and so is every batch of another shape, such as a short last one. What a step
    reads of the run's progress (weights, temperatures) is part of a recording: where that changes, as a ramp does at
    each epoch, steps are taken as ever until it rests, and are recorded anew. The learning rate is a tensor, which the
    recording reads.

    Args:
        update: Whose steps; its optimiser must read its rate from a tensor, see `reads_tensor_rate`.
        recorder: How they are recorded.
    """

    def __init__(self, update: Joint, recorder: Recorder):
        self.update, self.recorder = update, recorder
        self._put_rates()
        self._forget()

    def _put_rates(self) -> None:
        device = self.update.parameters[0].device
        for group in self.update.optimizer.param_groups:
            # float32 is what the kernels on a GPU read
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
            if "capturable" in group:
                group["capturable"] = True

    def _forget(self) -> None:
        self._replay: Callable[[], Step] | None = None
        self._held: Batch | None = None
        self._reads: list[Read] = []
        self._warm = 0  # steps taken one by one since what they read changed

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        self.update.prepare(progress)
        if self._held is None:
            self._held = batch.map(torch.empty_like)
        if not _alike(batch, self._held):
            return self.update.take(batch, progress)
        if any(read(progress) != value for read, value in self._reads):
            self._replay, self._warm = None, 0
        if self._warm < WARM_UP:
            self._warm += 1
            watched = Watched(progress)
            step = self.recorder.warm(lambda: self.update.take(batch, watched))
            self._reads = watched.reads
            return step
        held = self._held
        for static, new in zip(held.tensors, batch.tensors, strict=True):
            static.copy_(new, non_blocking=True)
        if self._replay is None:
            self._replay = self.recorder.record(lambda: self.update.take(held, progress))
        return self._replay()

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.update.lr

    def state_dict(self) -> dict[str, Any]:
        state = self.update.state_dict()
        for group in state["param_groups"]:
            group["lr"] = float(group["lr"])
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state. It is in new tensors, so a recording of the old ones is of no use."""
        self.update.load_state_dict(state)
        self._put_rates()
        self._forget()


def reads_tensor_rate(update: object) -> bool:
    """Whether an update takes one step whose optimiser reads its rate on the device: torch's fused ones do."""
    return isinstance(update, Joint) and all(group.get("fused") is True for group in update.optimizer.param_groups)


def _alike(batch: Batch, other: Batch) -> bool:
    return batch.whole == other.whole and list(map(_form, batch.tensors)) == list(map(_form, other.tensors))


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype
