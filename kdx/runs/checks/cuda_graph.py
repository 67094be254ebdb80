"""What a step as a CUDA graph (`trainer.cuda_graph=true`) cannot be, told before anything loads."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kdx.config.compose import Config
from kdx.core.batch import Batch
from kdx.core.distributed import size
from kdx.core.method import Method
from kdx.core.schedule import Progress, Watched, at
from kdx.core.spec import DataSpec
from kdx.data.views.augment import MultiView
from kdx.engine.optim.cuda_graph import reads_tensor_rate, unreplayable
from kdx.engine.settings import Settings
from kdx.runs.build import make

EXAMPLES = 4  # of the step that is watched
STEPS_PER_EPOCH = 100  # of the made-up run in which schedules are looked at
OFTEN = 0.5  # share of steps that may differ from the one before in more than their batch

# What a program learns from a GPU by waiting for it
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


def misfits(config: Config, settings: Settings) -> Iterator[str]:
    """What a config says by itself against recording its steps."""
    if not settings.cuda_graph:
        return
    what = "trainer.cuda_graph=true"
    device = settings.pick_device()
    if device.type != "cuda":
        yield f"{what} records the steps of a GPU, and this run is on {device}; leave it out"
    if size() > 1:
        yield f"{what} is for one process, and there are {size()}; leave it out"
    if config["teacher"] is not None and config["teacher"]["memo"]:
        yield f"{what} cannot record a teacher that looks up its answers on disk; leave it or teacher.memo out"


def unrecordable(config: Config, method: Method, update: object, spec: DataSpec) -> Iterator[str]:
    """Why steps of a method cannot be recorded; nothing where they can, or need not be.

    Args:
        config: Prepared.
        method: Over its networks, on the CPU.
        update: How its steps are taken.
        spec: Facts of the training data.
    """
    if not config["trainer"]["cuda_graph"]:
        return
    what = "trainer.cuda_graph=true"
    if not reads_tensor_rate(update):
        yield (
            f"{what} needs one optimiser that reads its rate on the device: update=joint, optimizer=sgd or adamw, "
            "optimizer.implementation=fused"
        )
    if (why := unreplayable(update)) is not None:
        yield why
    name, epochs = config["choices"]["method"], config["trainer"]["schedule_epochs"] or 100.0
    views = int(isinstance(make(config["augmentation"]), MultiView))
    reads, waits = watch(method, made_up(spec, views), Progress(0, math.ceil(epochs) * STEPS_PER_EPOCH, epochs))
    if waits:
        yield f"{what}: a step of method={name} is also a matter of the CPU ({', '.join(waits)}); leave it out"
    if changing := changes(reads, epochs):
        yield (
            f"{what}: a schedule of method={name} changes a number in {changing:.0%} of the steps, which is part of a "
            "recording; choose one in whole epochs, or leave it out"
        )


def made_up(spec: DataSpec, views: int) -> Batch:
    """A few examples that look like those of a training set."""
    inputs = torch.randn(EXAMPLES, *spec.input_shape)
    further = tuple(torch.randn_like(inputs) for _ in range(views))
    return Batch(inputs, spec.task.made_up(EXAMPLES), torch.arange(EXAMPLES), further)


def watch(method: Method, batch: Batch, progress: Progress) -> tuple[list[Any], list[str]]:
    """Take the forward half of a step.

    Returns:
        What it read of the progress, see `Watched`; and what it did that a recording could not repeat.
    """
    watched, host = Watched(progress), _Host()
    before = _streams()
    try:
        with host:
            method.train()(batch, watched)
            for weight in method.weights.values():
                at(weight, watched)
    except Exception:  # nothing is known then; the run itself says what is wrong
        return watched.reads, host.found
    if before != _streams():
        host.found.append("numbers drawn by Python or NumPy")
    return watched.reads, host.found


def _streams() -> tuple[object, ...]:
    _, keys, position, *_ = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), position


def changes(reads: list[Any], epochs: float) -> float:
    """The largest share of steps at which something read changes; 0 where most steps are alike."""
    total = math.ceil(epochs) * STEPS_PER_EPOCH
    places = range(0, total - 1, max(1, total // 1009))
    shares = [0.0]
    for read, _ in reads:
        moved = [read(Progress(s, total, epochs)) != read(Progress(s + 1, total, epochs)) for s in places]
        shares.append(sum(moved) / len(places))
    return max(shares) if max(shares) > OFTEN else 0.0


class _Host(TorchFunctionMode):
    """Notes calls whose effect is on the CPU's side, where a GPU's recording does not reach."""

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
            return None  # what has no hash is none of them
        if func is torch.tensor and kwargs.get("device") is not None:
            return "torch.tensor to a device"
        if func is Tensor.__getitem__ and any(_is_mask(part) for part in _parts(args[1])):
            return "a mask as an index"
        return None


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_mask(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype == torch.bool
