"""What evaluators of networks on a split share."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.core.method import Evaluator
from kdx.core.ranges import Positive
from kdx.core.types import Batch
from kdx.data.on_device import on_device
from kdx.losses.networks import network_with


class SplitEvaluator(Evaluator):
    """Reads a split of the data.

    Args:
        loaders: Batches by split: test, train (a subset, without augmentation), val where there is one.
        device: Where the networks are.
        split: Which split to read.
        every: Epochs between two evaluations; None for the end of the run alone.

    Raises:
        UserError: There is no such split.
    """

    needs_teacher = False

    def __init__(
        self, loaders: Mapping[str, Iterable[Batch]], device: torch.device, split: str, every: Positive | None
    ):
        self.split, self.every = split, every
        if split not in loaders:
            raise UserError(f"there is no split '{split}'; this data set has: {', '.join(loaders)}")
        self.loader, self._device = loaders[split], device

    def batches(self) -> Iterator[Batch]:
        """The split's batches, in order, on the device."""
        return on_device(self.loader, self._device)


def network(models: Mapping[str, nn.Module], role: str) -> nn.Module:
    """A network by role. Raises UserError that names the roles there are, where it is missing."""
    if role not in models:
        raise UserError(f"this method has no network '{role}'; it has: {', '.join(models)}")
    return models[role]


def differentiable(net: nn.Module) -> AbstractContextManager[None]:
    """Within the block a network's outputs have a graph back to its inputs, also where it is a frozen teacher."""
    frozen = network_with(net, "through_inputs")
    return nullcontext() if frozen is None else frozen.through_inputs()
