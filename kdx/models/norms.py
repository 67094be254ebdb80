"""Context managers that set batch norms or a whole network to evaluation mode and restore the modes afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdx.core.errors import UserError


def has_batch_norms(network: nn.Module) -> bool:
    """Whether the network has batch norms, so that in training an example's outputs depend on the rest of the batch."""
    return any(isinstance(m, _BatchNorm) for m in network.modules())


@contextmanager
def frozen_batch_norms(network: nn.Module) -> Iterator[None]:
    """Within the block, batch norms use their running statistics without updating them; other modules keep their mode.

    Raises:
        UserError: A batch norm has no running statistics.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    if any(m.running_mean is None for m in norms):
        raise UserError(
            f"{type(network).__name__} has batch norms without running statistics, so its examples cannot be "
            "treated separately"
        )
    before = [m.training for m in norms]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm, training in zip(norms, before, strict=True):
            norm.training = training


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within the block, the network is in evaluation mode; afterwards each module gets its previous mode back."""
    before = [(m, m.training) for m in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
