"""Frozen networks with parameters sharded across processes, for teachers much larger than their students."""

from collections.abc import Iterator

import torch
from torch import nn

from kdx.core.distributed import world_size


def shard(net: nn.Module, device: torch.device) -> None:
    """Shard a network's parameters across the processes, in place; each forward pass gathers them.

    Blocks are gathered one after the other, so that no process ever holds the whole network while it runs. The
    classifier (`head`) stays whole in each process, since methods read and copy it. All processes must then run the
    network equally often.

    Args:
        net: A frozen network, the same in all processes, on the device.
        device: Device of the network.
    """
    from torch.distributed.device_mesh import init_device_mesh  # this import takes seconds
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world_size(),))
    assert isinstance(net.head, nn.Module)
    whole = set(net.head.parameters())
    for parameter in net.parameters():
        parameter.data = parameter.data.contiguous()  # fully_shard needs contiguous parameters
    for block in _blocks(net):
        if not whole.intersection(block.parameters()):
            fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
    net.is_sharded = True  # pyright: ignore[reportArgumentType] - nn.Module says that attributes are modules


def is_sharded(net: nn.Module) -> bool:
    """Whether a forward pass of this network communicates, so that all processes must run it together."""
    return any(getattr(part, "is_sharded", False) for part in net.modules())


def _blocks(net: nn.Module) -> Iterator[nn.Module]:
    """The modules that a network calls one after the other."""
    for child in net.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from (part for part in child if any(True for _ in part.parameters()))
        else:
            yield from _blocks(child)
