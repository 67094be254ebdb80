"""A network as a teacher: fixed for ever, with its own input normalisation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Self

import torch
from torch import Tensor, nn

from kdx.core.types import Outputs

Statistics = tuple[Sequence[float], Sequence[float]]


class Frozen(nn.Module):
    """Wraps a network that returns `Outputs`.

    It stays in evaluation mode whatever `train()` is called around it, so that its batch norm
    statistics never move and its dropout never acts; its parameters take no gradient; inputs that were
    normalised with the student's statistics are put into the teacher's own first; and it computes in
    its own precision, whatever the student's is (`trainer.precision`).

    Args:
        net: The network; its parameters are frozen in place.
        own: Per-channel (mean, std) that the network was trained with; None for the same as given.
        given: Per-channel (mean, std) that the inputs [B, C, ...] come with; None for the same as own.

    Raises:
        ValueError: Statistics of different lengths, or a standard deviation that is not positive.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, net: nn.Module, own: Statistics | None, given: Statistics | None):
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.training = False
        self._through_inputs = False
        scale, shift = _renormalisation(own, given)
        # not part of the state dict: they are facts of the data, not of the network
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    @property
    def head(self) -> nn.Module:
        """The network's final classifier."""
        head = self.net.head
        assert isinstance(head, nn.Module)
        return head

    def train(self, mode: bool = True) -> Self:
        """Does nothing: a teacher is in evaluation mode."""
        return super().train(False)

    @contextmanager
    def through_inputs(self) -> Iterator[None]:
        """Within the block, outputs carry a graph back to the inputs, which methods that match derivatives need."""
        before, self._through_inputs = self._through_inputs, True
        try:
            yield
        finally:
            self._through_inputs = before

    def renormalise(self, x: Tensor) -> Tensor:
        """Inputs [B, C, ...] as the network expects them; the very same tensor where nothing is to be done."""
        if self.scale is None or self.shift is None:
            return x
        shape = (-1, *(1,) * (x.dim() - 2))
        return (x * self.scale.view(shape) + self.shift.view(shape)).to(x.dtype)

    def forward(self, x: Tensor) -> Outputs:
        if self.net.training:  # somebody called train() on the wrapped network itself
            self.net.eval()
        grad = nullcontext() if self._through_inputs else torch.no_grad()
        with grad, torch.autocast(x.device.type, enabled=False):
            return self.net(self.renormalise(x))


def _renormalisation(own: Statistics | None, given: Statistics | None) -> tuple[Tensor | None, Tensor | None]:
    if own is None or given is None:
        return None, None
    (own_mean, own_std), (given_mean, given_std) = (
        tuple(torch.tensor(list(s), dtype=torch.float64) for s in pair) for pair in (own, given)
    )
    lengths = {len(s) for s in (own_mean, own_std, given_mean, given_std)}
    if len(lengths) != 1:
        raise ValueError(
            f"means and standard deviations must have one number per channel: the teacher's have {len(own_mean)} and "
            f"{len(own_std)}, the data's {len(given_mean)} and {len(given_std)}"
        )
    if min(own_std.min(), given_std.min()) <= 0:
        raise ValueError("standard deviations of the input normalisation must be positive")
    if torch.equal(own_mean, given_mean) and torch.equal(own_std, given_std):
        return None, None
    return (given_std / own_std).float(), ((given_mean - own_mean) / own_std).float()
