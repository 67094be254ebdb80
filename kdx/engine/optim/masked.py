"""Sparse students: weights that a fixed mask keeps at zero during the whole training."""

from typing import Any, Literal

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Step
from kdx.core.ranges import OpenFraction
from kdx.core.schedule import Progress
from kdx.core.seed import generator
from kdx.engine.optim.gradient import Backward, Gradient, WeightedSum
from kdx.models.counterpart import counterpart

Choice = Literal["random", "initial", "teacher"]


class Masked(Gradient):
    """Projects weights and gradients on a mask: each step is `x <- C(x - rate * gradient)` with the projection C.

    A tensor of two or more dimensions keeps a share of its entries; biases and normalisation parameters keep all. A
    weight outside the mask has the value and the gradient 0, and stays 0 in every optimizer here.

    Args:
        keep: Share of the entries that stay.
        choose: The entries that stay: at random, the largest of the student's initial weights, or the largest of the
            weights of a teacher of the same architecture.
        seed: Of the random choice.
        inner: The gradient that is projected; None for the gradient of the weighted sum of the terms.

    Raises:
        UserError: The choice needs a teacher of the student's architecture.
    """

    def __init__(self, keep: OpenFraction, choose: Choice, seed: int, inner: Gradient | None):
        self.keep, self.choose, self.seed = keep, choose, seed
        self.inner = inner or WeightedSum()
        self.masks: list[Tensor] = []

    def __call__(self, backward: Backward, batch: Batch, progress: Progress) -> Step:
        if not self.masks:
            self.masks = self._chosen(backward)
        with torch.no_grad():  # the initial weights; later the weights outside stay 0
            for p, mask in zip(backward.parameters, self.masks, strict=True):
                p.mul_(mask.to(p.device))
        step = self.inner(backward, batch, progress)
        for p, mask in zip(backward.parameters, self.masks, strict=True):
            if p.grad is not None:
                p.grad.mul_(mask.to(p.device))
        return step

    def _chosen(self, backward: Backward) -> list[Tensor]:
        sizes = [p.detach().abs() for p in backward.parameters]
        if self.choose == "teacher":
            nets = backward.method.models()
            if "teacher" not in nets:
                raise UserError("update.gradient.choose=teacher needs a method with a teacher")
            found = counterpart(backward.method.student, nets["teacher"])
            names = {id(p): name for name, p in backward.method.student.named_parameters()}
            if any(id(p) not in names for p in backward.parameters):
                raise UserError("update.gradient.choose=teacher: the method trains more than the student")
            sizes = [found[names[id(p)]].abs().to(p.device) for p in backward.parameters]
        elif self.choose == "random":
            draws = generator(self.seed, "masks")
            sizes = [torch.rand(p.shape, generator=draws).to(p.device) for p in backward.parameters]
        return [self._largest(size) for size in sizes]

    def _largest(self, sizes: Tensor) -> Tensor:
        """1 for the largest share of the entries, 0 for the others; all 1 for a vector."""
        mask = torch.ones_like(sizes)
        if sizes.ndim > 1:
            order = sizes.flatten().argsort(stable=True)
            mask.view(-1)[order[: sizes.numel() - round(self.keep * sizes.numel())]] = 0
        return mask

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks = state["masks"]
        self.inner.load_state_dict(state["inner"])
