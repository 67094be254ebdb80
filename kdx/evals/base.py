"""Base class of evaluators of a split, and how processes divide its batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TypedDict

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.distributed import all_gather_values, from_leader, is_leader, rank, world_size
from kdx.core.errors import UserError
from kdx.core.method import Evaluator
from kdx.core.ranges import Positive
from kdx.core.task import PairMetric, Task
from kdx.data.loaders import EvalLoader
from kdx.data.on_device import on_device
from kdx.losses.base.heads import holder_of
from kdx.metrics.base import StreamingMetric
from kdx.models.teachers.sharded import is_sharded


class OfSplit(TypedDict):
    """The arguments of `SplitEvaluator`, which its subclasses accept beside their own."""

    loaders: Mapping[str, Iterable[Batch]]
    device: torch.device
    task: Task
    split: str
    every: Positive | None


class SplitEvaluator(Evaluator):
    """Reads a split of the data.

    Args:
        loaders: Batches by split: test, train (a subset, without augmentation), val where there is one.
        device: Device of the networks.
        task: Task of the data set.
        split: Name of the split to read.
        every: Epochs between two evaluations; None evaluates only at the end of the run.

    Raises:
        UserError: The split does not exist.
    """

    needs_teacher = False

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Batch]],
        device: torch.device,
        task: Task,
        split: str,
        every: Positive | None,
    ):
        self.task, self.split, self.every = task, split, every
        if split not in loaders:
            raise UserError(f"there is no split '{split}'; this data set has: {', '.join(loaders)}")
        self.loader, self._device = loaders[split], device

    def batches(self) -> Iterator[Batch]:
        """The split's batches, in order, on the device."""
        return on_device(self.loader, self._device)

    def share(self, *nets: nn.Module) -> Iterator[Batch]:
        """This process's share of the split's batches, on the device, see `dealt`."""
        return on_device(dealt(self.loader, *nets), self._device)


def divided(*nets: nn.Module) -> bool:
    """Whether processes divide the batches for these networks; not if all must call a sharded one together."""
    return world_size() > 1 and not any(map(is_sharded, nets))


def dealt(batches: Iterable[Batch], *nets: nn.Module) -> Iterable[Batch]:
    """This process's share of the batches, dealt round-robin; all batches if not `divided`.

    Batches stay whole, since the outputs for an example may differ in rounding between batches.
    """
    if not divided(*nets):
        return batches
    if isinstance(batches, EvalLoader):  # reads only its share
        return batches.dealt(rank(), world_size())
    return islice(batches, rank(), None, world_size())


def computed(
    metrics: Mapping[str, PairMetric | StreamingMetric], compute: Callable[[], dict[str, float]], *nets: nn.Module
) -> dict[str, float]:
    """Add up the metrics of all processes and return their values in each process.

    Args:
        metrics: This process's metrics, under the same names in all processes; empty in one that read no batch.
        compute: Reads the values. The leader calls it after it has merged the sums of all processes.
        nets: The measured networks, as given to `dealt`.
    """
    if not divided(*nets):
        return compute()
    parts = all_gather_values({name: {key: t.cpu() for key, t in m.sums.items()} for name, m in metrics.items()})
    values, failed = None, None
    if is_leader():
        try:
            for part in parts[1:]:
                for name, sums in part.items():
                    metrics[name].merge(sums)
            values = compute()
        except Exception as error:
            failed = error
    return from_leader(values, failed)


def network(models: Mapping[str, nn.Module], role: str) -> nn.Module:
    """A network by role. Raises UserError with the known roles if it is missing."""
    if role not in models:
        raise UserError(f"this method has no network '{role}'; it has: {', '.join(models)}")
    return models[role]


def differentiable(net: nn.Module) -> AbstractContextManager[None]:
    """Within the block, a network's outputs have a graph to its inputs, also those of a frozen teacher."""
    frozen = holder_of(net, "through_inputs")
    return nullcontext() if frozen is None else frozen.through_inputs()
