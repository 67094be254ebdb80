"""Attacks on inputs: boundary samples, and projected gradient descent (PGD)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kdx.core.ranges import NonNegative, Positive, PositiveInt

Logits = Callable[[Tensor], Tensor]
Start = Literal["centre", "uniform", "gaussian"]
GAUSSIAN = 0.001  # standard deviation of the gaussian start, where white is 1; the value of TRADES and RSLAD


@dataclass(frozen=True, kw_only=True)
class BoundaryAttack:
    """Gradient steps that move an example to the network's decision boundary between its class and a target class.

    The step length is proportional to the difference of the two logits, so steps shrink towards the boundary. An
    example stops as soon as its prediction changes.

    Attributes:
        steps: Number of steps.
        step_size: Step length divided by the difference of the two logits.
        margin: Added to that difference, so that the last step crosses the boundary.
        low: Smallest input value, after normalisation.
        high: Largest input value, after normalisation.

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
        """Return the boundary samples.

        Args:
            network: Maps inputs [B, ...] to logits [B, C], differentiably in the inputs.
            inputs: [B, ...].
            targets: A class other than the predicted one for each example, int64 [B].

        Returns:
            Inputs [B, ...], detached.
        """
        moved, base = inputs.detach(), None
        for _ in range(self.steps):
            # always in float32: half precision rounds small steps away
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
    """Projected gradient descent: signed gradient steps that raise an objective within an L-infinity ball.

    One step of length `radius` from the centre is the fast gradient sign method (FGSM).

    Attributes:
        radius: Largest change of a pixel, in units where white is 1.
        step_size: Change of a pixel per step, in the same units.
        steps: Number of steps.
        start: Starting point: the input (centre), uniform in the ball (uniform), or near the input (gaussian).

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
        """Return adversarial inputs; every pixel stays between black and white.

        Args:
            network: Maps inputs [B, C, ...] to logits, differentiably in the inputs.
            objective: Function to raise; maps logits [B, K] to one value per example, or to their sum.
            inputs: [B, C, ...], normalised.
            mean: Per-channel mean of the inputs' normalisation.
            std: Per-channel standard deviation of the inputs' normalisation.

        Returns:
            Inputs [B, C, ...], detached.
        """
        centre = inputs.detach()
        shape = (1, -1, *(1,) * (centre.ndim - 2))
        # created on the device; a copy from the host would synchronise a GPU
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
