"""Several processes that train one run together, each on its share of every batch.

`torchrun` starts them and says in the environment who is who. Batches, their order and the weights after each step are
those of one process but for the order of sums: the mean of all gradients is taken, batch norms see the whole batch
(`kdx.models.sync_norms`), and what relates the examples of a batch is refused (`Term.divisible`). Each draws what is
random in a step, such as dropout, from a stream of its own. All hold the same weights and measure the same; one, the
leader, writes. A process alone is the case of one: nothing here costs it anything or changes a bit.
"""

import io
import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

_joined = False


def size() -> int:
    """How many processes train the run."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def local_rank() -> int:
    """Which of those on its machine this one is, from 0: the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


def local_size() -> int:
    """How many of them are on its machine, as far as `torchrun` says."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if size() > 1 and "LOCAL_WORLD_SIZE" in os.environ else size()


def leads() -> bool:
    """Whether this is the process that writes: the record, the checkpoints, what a person reads."""
    return rank() == 0


def join() -> None:
    """Meet the other processes. Where there are none, or after the first time, nothing happens."""
    global _joined
    if size() == 1 or _joined:
        return
    import torch
    from torch import distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=_store(), rank=rank(), world_size=size())
    _joined = True


def leave() -> None:
    """Part from the others at the end of a run that went well."""
    if _joined:
        from torch import distributed as dist

        dist.barrier()
        dist.destroy_process_group()


@cache
def fails_first() -> bool:
    """Whether this process is the first to fail, and so the one that says why.

    The others fail the same way, or because it left them; they may be ended before they can say anything.
    """
    return size() == 1 or _store().add("failed", 1) == 1


def by_leader(make: Callable[[], T]) -> T:
    """What the leader makes, in all processes; where it fails, all fail the same way."""
    if size() == 1:
        return make()
    box: list[Any] = [None, None]
    if leads():
        try:
            box[0] = make()
        except Exception as error:
            box[1] = error
    _broadcast(box)
    if box[1] is not None:
        raise box[1]
    return box[0]


def leader_first(make: Callable[[], T]) -> T:
    """What each process makes for itself, the others once the leader has: so one downloads, and all read."""
    if size() == 1:
        return make()
    made = []
    by_leader(lambda: made.append(make()))
    return made[0] if made else make()


def gathered(value: T) -> list[T]:
    """A value of each process, in all of them: tensors, and plain values that hold some."""
    if size() == 1:
        return [value]
    import torch
    from torch import distributed as dist

    file = io.BytesIO()
    torch.save(value, file)
    files: list[Any] = [None] * size()
    dist.all_gather_object(files, file.getvalue())
    return [torch.load(io.BytesIO(each), weights_only=True) for each in files]


def total(values: "Tensor") -> "Tensor":
    """The sum over all processes, with a graph; the very same tensor where there is one process."""
    return values if size() == 1 else _total()(values)


def weight(part: int, whole: int | None) -> float:
    """What the mean over a process' share counts in the mean over processes; 1 where all have equally many examples.

    Args:
        part: Examples of the share.
        whole: Examples of the batch; None where the share is all of it.
    """
    return 1.0 if whole is None else part * size() / whole


def mean_gradients(parameters: "Iterable[torch.nn.Parameter]") -> None:
    """Replace gradients by their mean over all processes, all in one message.

    A parameter without a gradient in one process counts as 0 there, and is left alone where no process has one.
    """
    owned = [] if size() == 1 else list(parameters)
    if not owned:
        return
    import torch
    from torch import distributed as dist

    with torch.no_grad():
        has = torch.tensor([float(p.grad is not None) for p in owned], device=owned[0].device)
        flat = torch.cat([has, *((p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten()) for p in owned)])
        dist.all_reduce(flat)
        # looked at only where this process lacks one, since looking makes a GPU wait
        known = [True] * len(owned) if all(p.grad is not None for p in owned) else (flat[: len(owned)] > 0).tolist()
        flat = flat[len(owned) :].div_(size())
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
def _total() -> "Callable[[Tensor], Tensor]":
    import torch
    from torch import distributed as dist

    class Total(torch.autograd.Function):
        """A sum that everybody gets; so the gradient of what goes in is the sum of what everybody makes of it."""

        @staticmethod
        def forward(ctx: Any, values: "Tensor") -> "Tensor":
            values = values.contiguous().clone()
            dist.all_reduce(values)
            return values

        @staticmethod
        def backward(ctx: Any, *gradients: "Tensor") -> "Tensor":
            return Total.apply(gradients[0])  # pyright: ignore[reportReturnType] - torch's stub says Any | None

    return Total.apply  # pyright: ignore[reportReturnType]
