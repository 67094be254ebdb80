"""A whole training step as a CUDA graph, replayed with one call in place of a thousand kernel launches."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Step
from kdx.core.schedule import Progress, Watched
from kdx.engine.optim.update import Joint

WARM_UP = 3  # steps before a capture, in which libraries choose algorithms and optimizers create their state
Read = tuple[Callable[[Progress], Any], Any]


class Recorder(Protocol):
    """Captures steps."""

    def warm(self, take: Callable[[], Step]) -> Step:
        """Run a warm-up step."""
        ...

    def record(self, take: Callable[[], Step]) -> Callable[[], Step]:
        """Capture a step without running it; returns a function that replays it on the same tensors."""
        ...


class CudaRecorder:
    """Captures steps on a GPU. A replay advances the device's random generator, so dropout draws new masks."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)

    def warm(self, take: Callable[[], Step]) -> Step:
        # CUDA cannot capture on the default stream
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
            raise UserError(
                f"trainer.cuda_graph=true: CUDA cannot capture this step ({why}); set trainer.cuda_graph=false"
            ) from error

        def replay() -> Step:
            graph.replay()
            return step

        return replay


class Graphed:
    """An update that replays the steps of another one.

    The first steps run without a graph, and so does every batch of another shape, such as a short last one. The numbers
    that a step reads from the run's progress (weights, temperatures) are constants of a graph: when one changes, as a
    ramp does at each epoch, steps run without a graph until it is constant, and then a new graph is captured. The
    learning rate is a tensor, which the graph reads.

    Args:
        update: The update; its optimizer must read the learning rate from a tensor, see `reads_tensor_rate`.
        recorder: Captures the steps.

    Raises:
        UserError: The update's gradient cannot be replayed.
    """

    def __init__(self, update: Joint, recorder: Recorder):
        if (why := unreplayable(update)) is not None:
            raise UserError(why)
        self.update, self.recorder = update, recorder
        self._put_rates()
        self._forget()

    def _put_rates(self) -> None:
        device = self.update.parameters[0].device
        for group in self.update.optimizer.param_groups:
            # the GPU kernels read float32
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
            if "capturable" in group:
                group["capturable"] = True

    def _forget(self) -> None:
        self._replay: Callable[[], Step] | None = None
        self._held: Batch | None = None
        self._reads: list[Read] = []
        self._warm = 0  # warm-up steps since a constant changed

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
        """Restore a state. It comes in new tensors, so the graph, which reads the old ones, is dropped."""
        self.update.load_state_dict(state)
        self._put_rates()
        self._forget()


def reads_tensor_rate(update: object) -> bool:
    """Whether an update has one optimizer that reads its learning rate on the device, as torch's fused ones do."""
    return isinstance(update, Joint) and all(group.get("fused") is True for group in update.optimizer.param_groups)


def unreplayable(update: object) -> str | None:
    """Why a CUDA graph cannot replay an update's gradient; None where it can."""
    if not isinstance(update, Joint) or update.gradient.recordable:
        return None
    return (
        f"trainer.cuda_graph=true: update.gradient={type(update.gradient).__name__} does not declare that a graph can "
        "replay it (recordable = True); set trainer.cuda_graph=false"
    )


def _alike(batch: Batch, other: Batch) -> bool:
    return batch.whole == other.whole and list(map(_form, batch.tensors)) == list(map(_form, other.tensors))


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype
