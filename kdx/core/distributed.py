"""Processes that train one run together, each on its share of every batch.

`torchrun` starts the processes and sets their environment. Batches, their order and the weights after each step equal
those of a single process, up to the order of sums: gradients are averaged, batch norms use statistics of the whole
batch (`kdx.models.sync_norms`), and terms that relate the examples of a batch are refused (`Term.divisible`). Each
process draws randomness within a step, such as dropout, from its own stream. All processes hold the same weights and
compute the same metrics; rank 0, the leader, writes files. With one process, every function here is the identity or
does nothing.

One file, since all functions share the state of one process group.
"""

import io
import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from kdx.core.rendezvous import agreed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

_initialised = False


def world_size() -> int:
    """Number of processes that train the run.

    Example:
        >>> world_size()  # without torchrun
        1
    """
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def rank() -> int:
    """Rank of this process, from 0.

    Example:
        >>> rank()  # without torchrun
        0
    """
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def local_rank() -> int:
    """Rank of this process on its machine, from 0: the number of its GPU.

    Example:
        >>> local_rank()  # without torchrun
        0
    """
    return int(os.environ["LOCAL_RANK"]) if world_size() > 1 else 0


def local_world_size() -> int:
    """Number of processes on this machine, as set by `torchrun`; all processes if it is not set.

    Example:
        >>> local_world_size()  # without torchrun
        1
    """
    if world_size() > 1 and "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return world_size()


def is_leader() -> bool:
    """Whether this is the leader, rank 0, which prints and writes records and checkpoints.

    Example:
        >>> is_leader() == (rank() == 0)
        True
    """
    return rank() == 0


def init_process_group() -> None:
    """Initialise the process group. Does nothing for one process, or after the first call in a process.

    Example:
        >>> init_process_group()  # without torchrun
        >>> world_size()
        1
    """
    global _initialised
    if world_size() == 1 or _initialised:
        return
    import torch
    from torch import distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed.rendezvous import rendezvous

        store, own, size = next(rendezvous("env://"))
        fresh = dist.PrefixStore(agreed(store, own, size), store)
        dist.init_process_group(backend, store=fresh, rank=own, world_size=size)
    else:
        dist.init_process_group(backend, init_method="env://")
    _initialised = True


def destroy_process_group() -> None:
    """Wait for all processes, then destroy the process group, at the end of a successful run.

    Example:
        >>> destroy_process_group()  # without torchrun
    """
    if _initialised:
        from torch import distributed as dist

        dist.barrier()
        dist.destroy_process_group()


@cache
def fails_first() -> bool:
    """Whether this process is the first to fail, and so reports the reason.

    The others fail for the same reason, or because this one left; they may be killed before they can report.

    Example:
        >>> fails_first()  # without torchrun
        True
    """
    # a restart by torchrun may keep the store of the attempt before
    return world_size() == 1 or _store().add(f"failed {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) == 1


def from_leader(value: T | None, error: Exception | None = None) -> T:
    """The leader's value in all processes.

    Args:
        value: What the leader sends; it can be pickled. Ignored in the other processes.
        error: The leader's error instead of a value.

    Raises:
        Exception: The leader's error, in all processes.

    Example:
        >>> from_leader(3)  # without torchrun
        3
    """
    box: list[Any] = [value, error]
    if world_size() > 1:
        _broadcast(box)
    if box[1] is not None:
        raise box[1]
    return box[0]


def all_gather_values(value: T) -> list[T]:
    """Gather the values of all processes, in the order of their ranks.

    Args:
        value: A tensor, or plain values that contain tensors.

    Returns:
        One value per process, in every process.

    Example:
        >>> all_gather_values({"loss": 0.5})  # without torchrun
        [{'loss': 0.5}]
    """
    if world_size() == 1:
        return [value]
    import torch
    from torch import distributed as dist

    file = io.BytesIO()
    torch.save(value, file)
    files: list[Any] = [None] * world_size()
    dist.all_gather_object(files, file.getvalue())
    return [torch.load(io.BytesIO(each), weights_only=True) for each in files]


def all_reduce_sum(values: "Tensor") -> "Tensor":
    """Sum tensors over all processes, differentiably; returns the same tensor for one process.

    Example:
        >>> x = torch.ones(3)
        >>> all_reduce_sum(x) is x  # without torchrun
        True
    """
    return values if world_size() == 1 else _all_reduce()(values)


def weight(part: int, whole: int | None) -> float:
    """Weight of this process's mean in the mean over processes; 1 where all have equally many examples.

    Args:
        part: Examples of this process's share.
        whole: Examples of the whole batch; None where the share is all of it.

    Example:
        >>> weight(8, None), weight(8, 8)  # without torchrun
        (1.0, 1.0)
    """
    return 1.0 if whole is None else part * world_size() / whole


def mean_gradients(parameters: "Iterable[torch.nn.Parameter]") -> None:
    """Replace gradients by their mean over all processes, in one message.

    A parameter without a gradient in one process counts as 0 there; one without a gradient in any process stays
    without.

    Args:
        parameters: The parameters, in the same order in every process.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1))
        >>> p.grad = torch.tensor([2.0])
        >>> mean_gradients([p])  # without torchrun
        >>> p.grad
        tensor([2.])
    """
    owned = [] if world_size() == 1 else list(parameters)
    if not owned:
        return
    import torch
    from torch import distributed as dist

    with torch.no_grad():
        has = torch.tensor([float(p.grad is not None) for p in owned], device=owned[0].device)
        flat = torch.cat([has, *((p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten()) for p in owned)])
        dist.all_reduce(flat)
        # read only where this process lacks a gradient, since reading makes a GPU wait
        known = [True] * len(owned) if all(p.grad is not None for p in owned) else (flat[: len(owned)] > 0).tolist()
        flat = flat[len(owned) :].div_(world_size())
        for p, mean, there in zip(owned, flat.split([p.numel() for p in owned]), known, strict=True):
            if p.grad is not None:
                p.grad.copy_(mean.view_as(p))
            elif there:
                p.grad = mean.view_as(p).clone()


@cache
def _store() -> Any:
    from torch import distributed as dist

    store, _, _ = next(dist.rendezvous("env://"))
    return store


def _broadcast(box: list[Any]) -> None:
    import torch
    from torch import distributed as dist

    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))


@cache
def _all_reduce() -> "Callable[[Tensor], Tensor]":
    import torch
    from torch import distributed as dist

    class AllReduceSum(torch.autograd.Function):
        """All-reduce; its gradient is the sum of the gradients of all processes."""

        @staticmethod
        def forward(ctx: Any, values: "Tensor") -> "Tensor":
            values = values.contiguous().clone()
            dist.all_reduce(values)
            return values

        @staticmethod
        def backward(ctx: Any, *gradients: "Tensor") -> "Tensor":
            return AllReduceSum.apply(gradients[0])  # pyright: ignore[reportReturnType] - torch's stub says Any | None

    return AllReduceSum.apply  # pyright: ignore[reportReturnType]
