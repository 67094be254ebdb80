"""A frozen network as a teacher, with its own input normalisation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Self

import torch
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.tree import Tree, leaves

Statistics = tuple[Sequence[float], Sequence[float]]


class Frozen(nn.Module):
    """Wrap a network that returns `Outputs` as a frozen teacher.

    It stays in evaluation mode even if `train()` is called on a parent, so that batch norm statistics never change
    and dropout is off. Its parameters take no gradient. Inputs that were normalised with the student's statistics are
    converted to the teacher's own. It computes in its own precision, independent of the student's
    (`trainer.precision`).

    Args:
        net: The network; its parameters are frozen in place.
        own: Per-channel (mean, std) of the network's training inputs; None for the same as `given`.
        given: Per-channel (mean, std) of the inputs [B, C, ...] it receives; None for the same as `own`.

    Raises:
        ValueError: The statistics differ in length, or a standard deviation is not positive.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, net: nn.Module, own: Statistics | None, given: Statistics | None):
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.training = False
        self._through_inputs = False
        scale, shift = _renormalisation(own, given)
        # not part of the state dict: these are properties of the data, not of the network
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    @property
    def head(self) -> nn.Module:
        """The network's final classifier."""
        head = self.net.head
        assert isinstance(head, nn.Module)
        return head

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @contextmanager
    def through_inputs(self) -> Iterator[None]:
        """Within the block, outputs are differentiable in the inputs, as methods that match derivatives need."""
        before, self._through_inputs = self._through_inputs, True
        try:
            yield
        finally:
            self._through_inputs = before

    def renormalise(self, x: Tree) -> Tree:
        """Convert inputs [B, C, ...], or "images" in a mapping, to the network's normalisation.

        Returns the same inputs if both normalisations are equal.
        """
        if isinstance(x, Mapping) and "images" in x:
            return {**x, "images": self.renormalise(x["images"])}
        if self.scale is None or self.shift is None or not isinstance(x, Tensor):
            return x
        shape = (-1, *(1,) * (x.dim() - 2))
        return (x * self.scale.view(shape) + self.shift.view(shape)).to(x.dtype)

    def forward(self, x: Tree) -> Outputs:
        if self.net.training:  # train() was called on the wrapped network directly
            self.net.eval()
        grad = nullcontext() if self._through_inputs else torch.no_grad()
        with grad, torch.autocast(next(leaves(x)).device.type, enabled=False):
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
            f"means and standard deviations must have one number per channel: the teacher has {len(own_mean)} and "
            f"{len(own_std)}, the data {len(given_mean)} and {len(given_std)}"
        )
    if min(own_std.min(), given_std.min()) <= 0:
        raise ValueError("standard deviations of the input normalisation must be positive")
    if torch.equal(own_mean, given_mean) and torch.equal(own_std, given_std):
        return None, None
    return (given_std / own_std).float(), ((given_mean - own_mean) / own_std).float()
