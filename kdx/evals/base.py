"""What evaluators of networks on a split share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.distributed import by_leader, gathered, rank, size
from kdx.core.errors import UserError
from kdx.core.method import Evaluator
from kdx.core.ranges import Positive
from kdx.core.task import PairMetric, Task
from kdx.data.loaders import EvalLoader
from kdx.data.on_device import on_device
from kdx.losses.base.heads import network_with
from kdx.metrics.base import StreamingMetric
from kdx.models.teachers.sharded import is_sharded


class SplitEvaluator(Evaluator):
    """Reads a split of the data.

    Args:
        loaders: Batches by split: test, train (a subset, without augmentation), val where there is one.
        device: Where the networks are.
        task: The data set's task.
        split: Which split to read.
        every: Epochs between two evaluations; None for the end of the run alone.

    Raises:
        UserError: There is no such split.
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
        """Those of its batches that this one of several processes shows to networks, see `dealt`."""
        return on_device(dealt(self.loader, *nets), self._device)


def divided(*nets: nn.Module) -> bool:
    """Whether several processes divide what they show to networks: not where they must meet to run one of these."""
    return size() > 1 and not any(map(is_sharded, nets))


def dealt(batches: Iterable[Batch], *nets: nn.Module) -> Iterable[Batch]:
    """What falls to this one of several processes where whole batches are dealt out in turn; all if not `divided`.

    Whole, since what a network says of an example may differ by rounding with the batch that it is in.
    """
    if not divided(*nets):
        return batches
    if isinstance(batches, EvalLoader):  # reads no others
        return batches.dealt(rank(), size())
    return islice(batches, rank(), None, size())


def computed(
    metrics: Mapping[str, PairMetric | StreamingMetric], compute: Callable[[], dict[str, float]], *nets: nn.Module
) -> dict[str, float]:
    """What metrics say once those of all processes are added up; in each process.

    Args:
        metrics: This process' own, by the same names in all; the leader has all of them, others may have seen no batch.
        compute: Reads them. The leader calls it, when its metrics have the sums of all.
        nets: What was measured, as given to `dealt`.
    """
    if not divided(*nets):
        return compute()
    parts = gathered({name: {key: t.cpu() for key, t in m.sums.items()} for name, m in metrics.items()})

    def merged() -> dict[str, float]:
        for part in parts[1:]:
            for name, sums in part.items():
                metrics[name].merge(sums)
        return compute()

    return by_leader(merged)


def network(models: Mapping[str, nn.Module], role: str) -> nn.Module:
    """A network by role. Raises UserError that names the roles there are, where it is missing."""
    if role not in models:
        raise UserError(f"this method has no network '{role}'; it has: {', '.join(models)}")
    return models[role]


def differentiable(net: nn.Module) -> AbstractContextManager[None]:
    """Within the block a network's outputs have a graph back to its inputs, also where it is a frozen teacher."""
    frozen = network_with(net, "through_inputs")
    return nullcontext() if frozen is None else frozen.through_inputs()
