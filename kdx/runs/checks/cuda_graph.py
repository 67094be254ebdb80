"""Checks whether the steps of a run can be recorded as a CUDA graph (`trainer.cuda_graph=true`)."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kdx.config.schema import RunConfig
from kdx.core.batch import Batch
from kdx.core.distributed import world_size
from kdx.core.method import Method
from kdx.core.schedule import Progress, Watched, at
from kdx.core.spec import DataSpec
from kdx.data.views.augment import MultiView
from kdx.engine.optim.cuda_graph import reads_tensor_rate, unreplayable
from kdx.engine.settings import Settings
from kdx.runs.build import Light
from kdx.runs.checks.networks import random_inputs

EXAMPLES = 4  # in the batch of the watched step
STEPS_PER_EPOCH = 100  # of the hypothetical run in which schedules are evaluated
OFTEN = 0.5  # share of steps at which a schedule's value may change

# Operations that wait for the GPU
WAITING = {
    Tensor.item: "Tensor.item",
    Tensor.tolist: "Tensor.tolist",
    Tensor.numpy: "Tensor.numpy",
    Tensor.cpu: "Tensor.cpu",
    Tensor.__bool__: "the truth of a tensor",
    Tensor.__int__: "int of a tensor",
    Tensor.__float__: "float of a tensor",
    Tensor.__index__: "a tensor as an index",
    Tensor.nonzero: "Tensor.nonzero",
    Tensor.unique: "Tensor.unique",
    Tensor.masked_select: "Tensor.masked_select",
    Tensor.bincount: "Tensor.bincount",
    torch.nonzero: "torch.nonzero",
    torch.unique: "torch.unique",
    torch.masked_select: "torch.masked_select",
    torch.bincount: "torch.bincount",
    torch.equal: "torch.equal",
    torch.allclose: "torch.allclose",
    torch.linalg.svd: "torch.linalg.svd",
    torch.linalg.eigh: "torch.linalg.eigh",
    torch.svd: "torch.svd",
}
DRAWING = {torch.rand: "torch.rand", torch.randn: "torch.randn", torch.randint: "torch.randint"}
DRAWING |= {torch.randperm: "torch.randperm"}


def misfits(config: RunConfig, settings: Settings) -> Iterator[str]:
    """Errors of a config with `trainer.cuda_graph=true` that its values alone show."""
    if not settings.cuda_graph:
        return
    what = "trainer.cuda_graph=true"
    device = settings.pick_device()
    if device.type != "cuda":
        yield f"{what} records the steps of a GPU, and this run is on {device}; set trainer.cuda_graph=false"
    if "tokenizer" in config.dataset:
        yield f"{what} replays batches of one size, and texts differ in length; set trainer.cuda_graph=false"
    if world_size() > 1:
        yield f"{what} supports one process, and there are {world_size()}; set trainer.cuda_graph=false"
    if config.teacher is not None and config.teacher.memo:
        yield f"{what} cannot record reads from disk, which teacher.memo=true needs; set one of the two to false"


def unrecordable(config: RunConfig, light: Light, method: Method, update: object, spec: DataSpec) -> Iterator[str]:
    """Reasons why the steps of a method cannot be recorded; none without `trainer.cuda_graph=true`.

    Args:
        config: Prepared.
        light: Its light parts.
        method: The method with its networks, on the CPU.
        update: The run's update.
        spec: Facts of the training data.
    """
    if not light.settings.cuda_graph:
        return
    what = "trainer.cuda_graph=true"
    if not reads_tensor_rate(update):
        yield (
            f"{what} needs one optimiser with its learning rate on the device: update=joint, optimizer=sgd or adamw, "
            "optimizer.implementation=fused"
        )
    if (why := unreplayable(update)) is not None:
        yield why
    name, epochs = config.choices["method"], light.settings.schedule_epochs or 100.0
    views = int(isinstance(light.augmentation, MultiView))
    reads, waits = watch(method, made_up(spec, views), Progress(0, math.ceil(epochs) * STEPS_PER_EPOCH, epochs))
    if waits:
        yield (
            f"{what}: a step of method={name} syncs with the CPU ({', '.join(waits)}), which a CUDA graph cannot "
            "replay; set trainer.cuda_graph=false"
        )
    if changing := changes(reads, epochs):
        yield (
            f"{what}: a schedule of method={name} changes its value in {changing:.0%} of the steps, and each change "
            "needs a new recording; choose a schedule in whole epochs, or set trainer.cuda_graph=false"
        )


def made_up(spec: DataSpec, views: int) -> Batch:
    """A random batch in the shapes of the training set."""
    inputs, *further = (random_inputs(spec.inputs, EXAMPLES) for _ in range(1 + views))
    return Batch(inputs, spec.task.made_up(EXAMPLES), torch.arange(EXAMPLES), tuple(further))


def watch(method: Method, batch: Batch, progress: Progress) -> tuple[list[Any], list[str]]:
    """Run the forward pass of a step.

    Returns:
        The values that it read from the progress, see `Watched`; and the operations that a recording cannot replay.
    """
    watched, host = Watched(progress), _Host()
    before = _streams()
    try:
        with host:
            method.train()(batch, watched)
            for weight in method.weights.values():
                at(weight, watched)
    except Exception:  # the run itself reports the error
        return watched.reads, host.found
    if before != _streams():
        host.found.append("random numbers of Python or NumPy")
    return watched.reads, host.found


def _streams() -> tuple[object, ...]:
    _, keys, position, *_ = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), position


def changes(reads: list[Any], epochs: float) -> float:
    """The largest share of steps at which a value that was read changes; 0 if it is at most `OFTEN`."""
    total = math.ceil(epochs) * STEPS_PER_EPOCH
    places = range(0, total - 1, max(1, total // 1009))
    shares = [0.0]
    for read, _ in reads:
        moved = [read(Progress(s, total, epochs)) != read(Progress(s + 1, total, epochs)) for s in places]
        shares.append(sum(moved) / len(places))
    return max(shares) if max(shares) > OFTEN else 0.0


class _Host(TorchFunctionMode):
    """Records calls that sync with the CPU or draw on it; a CUDA graph cannot replay these."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if (why := self._why(func, args, kwargs)) is not None and why not in self.found:
            self.found.append(why)
        return func(*args, **kwargs)

    def _why(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        try:
            if func in WAITING:
                return WAITING[func]
            if func in DRAWING and ("device" not in kwargs or kwargs.get("generator") is not None):
                return f"{DRAWING[func]} without a device"
        except TypeError:
            return None  # an unhashable function is in neither table
        if func is torch.tensor and kwargs.get("device") is not None:
            return "torch.tensor to a device"
        if func is Tensor.__getitem__ and any(_is_mask(part) for part in _parts(args[1])):
            return "a mask as an index"
        return None


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_mask(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype == torch.bool
