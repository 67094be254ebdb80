"""Batch norms: replaced by group norms, frozen for a while, or in evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdx.core.errors import UserError
from kdx.core.ranges import PositiveInt


def group_normed(net: nn.Module, groups: PositiveInt) -> nn.Module:
    """The network with a group norm in place of each batch norm; one group makes it a layer norm over C, H and W.

    An example's outputs then do not depend on the rest of its batch, in training too.

    Args:
        net: A network with batch norms of images, changed in place.
        groups: Groups of channels; divides the channels of each norm.

    Raises:
        ValueError: The network has no batch norm, or the groups do not divide its channels.

    References:
        Wu, He, "Group Normalization", 2018. https://arxiv.org/abs/1803.08494
        Ba, Kiros, Hinton, "Layer Normalization", 2016. https://arxiv.org/abs/1607.06450

    Example:
        >>> group_normed(torch.nn.Sequential(torch.nn.BatchNorm2d(4)), 1)
        Sequential(
          (0): GroupNorm(1, 4, eps=1e-05, affine=True)
        )
    """
    found = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    if not found:
        raise ValueError(f"{type(net).__name__} has no batch norm to replace")
    for name, norm in found:
        if norm.num_features % groups:
            raise ValueError(f"{groups} groups do not divide the {norm.num_features} channels of '{name}'")
        net.set_submodule(name, nn.GroupNorm(groups, norm.num_features, norm.eps))
    return net


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
