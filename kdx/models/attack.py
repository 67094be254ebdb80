"""Inputs moved on purpose: onto a decision boundary, or within a ball to where an objective is highest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kdx.core.ranges import NonNegative, Positive, PositiveInt

Logits = Callable[[Tensor], Tensor]
Start = Literal["centre", "uniform", "gaussian"]
GAUSSIAN = 0.001  # standard deviation of the start, in units where white is 1; TRADES' and RSLAD's


@dataclass(frozen=True, kw_only=True)
class BoundaryAttack:
    """Gradient steps that bring an example to a network's boundary between its class and a target class.

    Steps are as long as the difference of the two logits, so that they shrink towards the boundary; an example
    whose prediction has changed stays where it is.

    Attributes:
        steps: Number of steps.
        step_size: Length of a step over the difference of the two logits.
        margin: Added to that difference, so that the last step crosses.
        low: Least value of an input number, after normalisation.
        high: Greatest value.

    References:
        Heo, Lee, Yun, Choi, "Knowledge Distillation with Adversarial Samples Supporting Decision Boundary", 2019.
        https://arxiv.org/abs/1805.05532
    """

    steps: PositiveInt
    step_size: Positive
    margin: Positive
    low: float
    high: float

    def __call__(self, network: Logits, inputs: Tensor, targets: Tensor) -> Tensor:
        """Boundary samples.

        Args:
            network: Inputs [B, ...] to logits [B, C], with a graph back to the inputs.
            inputs: [B, ...].
            targets: For each example a class that is not its prediction, int64 [B].

        Returns:
            [B, ...], without a graph.
        """
        moved, base = inputs.detach(), None
        for _ in range(self.steps):
            # in full precision whatever the caller computes in: small steps drown in half of it
            with torch.enable_grad(), torch.autocast(moved.device.type, enabled=False):
                moved = moved.detach().requires_grad_()
                logits = network(moved).float()
                prediction = logits.argmax(1)
                base = prediction if base is None else base
                rows = logits.gather(1, torch.stack([base, targets], 1))
                gap = rows[:, 0] - rows[:, 1]
                nearer = -gap.sum()
            inside = prediction == base
            if not inside.any():
                break
            (gradient,) = torch.autograd.grad(nearer, moved)
            norm = gradient.flatten(1).norm(dim=1)
            length = inside * self.step_size * (gap.detach() + self.margin) / torch.where(norm > 0, norm, 1.0)
            moved = (moved.detach() + _wide(length, moved) * gradient).clamp(self.low, self.high)
        return moved.detach()


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Signed gradient steps that raise an objective, within a distance of the input in each number.

    One step as long as the radius, from the centre, is the fast gradient sign method.

    Attributes:
        radius: Greatest change of a pixel, in units where white is 1.
        step_size: Change by one step, in the same units.
        steps: Number of steps.
        start: Where it begins: at the input (centre), anywhere in the ball (uniform), or near the input (gaussian).

    References:
        Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018.
        https://arxiv.org/abs/1706.06083
        Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", 2015.
        https://arxiv.org/abs/1412.6572
    """

    radius: NonNegative
    step_size: NonNegative
    steps: PositiveInt
    start: Start

    def __call__(
        self,
        network: Logits,
        objective: Callable[[Tensor], Tensor],
        inputs: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> Tensor:
        """Adversarial inputs, still images: every pixel stays between black and white.

        Args:
            network: Inputs [B, C, ...] to logits, with a graph back to the inputs.
            objective: What is raised: logits [B, K] to a number for each example, or to their sum.
            inputs: [B, C, ...], normalised.
            mean: Of each channel, that the inputs were normalised with.
            std: Of each channel.

        Returns:
            [B, C, ...], without a graph.
        """
        centre = inputs.detach()
        shape = (1, -1, *(1,) * (centre.ndim - 2))
        # filled in where they are needed, since copying them there would make a GPU wait
        shift, scale = (torch.stack([centre.new_full((), v) for v in s]).view(shape) for s in (mean, std))
        radius = self.radius / scale
        low = torch.maximum(centre - radius, (0 - shift) / scale)
        high = torch.minimum(centre + radius, (1 - shift) / scale)
        moved = centre
        if self.start == "uniform":
            moved = centre + (2 * torch.rand_like(centre) - 1) * radius
        elif self.start == "gaussian":
            moved = centre + torch.randn_like(centre) * (GAUSSIAN / scale)
        moved = moved.clamp(low, high)
        for _ in range(self.steps):
            with torch.enable_grad():
                moved = moved.detach().requires_grad_()
                value = objective(network(moved).float()).sum()
            (gradient,) = torch.autograd.grad(value, moved)
            moved = (moved.detach() + gradient.sign() * (self.step_size / scale)).clamp(low, high)
        return moved.detach()


def _wide(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(-1, *(1,) * (like.ndim - 1))
