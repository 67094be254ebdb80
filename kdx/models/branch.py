"""Branches: the last stages of one network, run on the features of another network's first stages."""

from typing import cast

import torch
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.models.base import Net


class Branch(nn.Module):
    """A network reduced to the parameters that its last stages use.

    Args:
        net: A network with `resume`; reduced in place.
        role: The last stage to leave out, such as "stage2".
        shape: Shape of that stage's output, without the batch axis.

    Raises:
        ValueError: The network cannot resume from a stage, or not from this one.
    """

    def __init__(self, net: nn.Module, role: str, shape: tuple[int, ...]):
        super().__init__()
        if not isinstance(net, Net):
            raise ValueError(
                f"a {type(net).__name__} cannot resume from a stage; use a network of this package, such as resnet20"
            )
        net.eval()  # keeps the zeros out of the batch norms' statistics
        logits = net.resume(role, torch.zeros(2, *shape)).logits
        parameters = list(net.parameters())
        reached = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
        net.train()
        _cut(net, {id(p) for p, gradient in zip(parameters, reached, strict=True) if gradient is not None})
        self.net, self.role = net, role

    @property
    def head(self) -> nn.Linear:
        """The final classifier."""
        return self.net.head

    def forward(self, x: Tensor) -> Outputs:
        """Map the stage's output to the logits and the features from that stage on."""
        return self.net.resume(self.role, x)


class Branched(nn.Module):
    """A trunk and one branch as a whole network, for evaluation.

    Args:
        trunk: The network whose first stages are shared.
        branch: The network's last stages.
    """

    def __init__(self, trunk: nn.Module, branch: Branch):
        super().__init__()
        self.trunk, self.branch = trunk, branch

    def forward(self, x: Tensor) -> Outputs:
        return self.branch(cast(Outputs, self.trunk(x)).feature(self.branch.role))


def _cut(module: nn.Module, kept: set[int]) -> None:
    for name, child in module.named_children():
        own = [id(p) for p in child.parameters()]
        if own and not kept.intersection(own):
            setattr(module, name, nn.Identity())
        else:
            _cut(child, kept)
