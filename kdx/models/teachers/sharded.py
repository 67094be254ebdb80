"""A frozen network whose parameters are divided among processes, for teachers that are big beside their students."""

from collections.abc import Iterator

import torch
from torch import nn

from kdx.core.distributed import size


def shard(net: nn.Module, device: torch.device) -> None:
    """Leave each process its part of a network's parameters, in place; they are put together for each forward pass.

    One block after the other, so that a whole network is never in one place while it runs. The classifier (`head`)
    stays whole in each, since methods read and copy it. From now on all processes must run the network equally often.

    Args:
        net: Frozen, the same in all processes, on the device.
        device: Where the networks are.
    """
    from torch.distributed.device_mesh import init_device_mesh  # takes seconds
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size(),))
    assert isinstance(net.head, nn.Module)
    whole = set(net.head.parameters())
    for parameter in net.parameters():
        parameter.data = parameter.data.contiguous()  # torch divides no other format
    for block in _blocks(net):
        if not whole.intersection(block.parameters()):
            fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
    net.meets = True  # pyright: ignore[reportArgumentType] - nn.Module says that attributes are modules


def meets(net: nn.Module) -> bool:
    """Whether processes meet in a forward pass of this network, so that all must run it together."""
    return any(getattr(part, "meets", False) for part in net.modules())


def _blocks(net: nn.Module) -> Iterator[nn.Module]:
    """The parts that a network runs one after the other, each by calling it."""
    for child in net.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from (part for part in child if any(True for _ in part.parameters()))
        else:
            yield from _blocks(child)
