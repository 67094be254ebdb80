"""Model inversion: images synthesised from a network by gradient descent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from kdx.core.errors import UserError
from kdx.core.ranges import Count, NonNegative, Positive, PositiveInt
from kdx.losses.features.deep_inversion import roughness, sameness, statistics_distance

Statistics = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class DeepInversion:
    """DeepInversion: Adam on the pixels, with class, batch norm statistics, smoothness and norm objectives.

    With a student, images on which it agrees with its teacher are penalised (Adaptive DeepInversion).

    Attributes:
        steps: Number of Adam steps, with betas 0.5 and 0.9.
        lr: Learning rate of Adam.
        statistics: Weight of the distance to the batch norms' means and variances.
        smooth: Weight of the total variation.
        small: Weight of the mean L2 norm of an image.
        compete: Weight of the agreement with the student; no effect without a student.
        temperature: Temperature of both softmaxes in that agreement.
        jitter: Largest shift of the batch before each step, in pixels; the shift wraps around the edges.

    References:
        Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", 2020.
        https://arxiv.org/abs/1912.08795
    """

    steps: PositiveInt
    lr: Positive
    statistics: NonNegative
    smooth: NonNegative
    small: NonNegative
    compete: NonNegative
    temperature: Positive
    jitter: Count

    def __call__(
        self, teacher: nn.Module, student: nn.Module | None, labels: Tensor, shape: tuple[int, ...], g: torch.Generator
    ) -> Tensor:
        """Synthesise normalised images of the given classes.

        Args:
            teacher: A network with batch norms that returns `Outputs`; in evaluation mode, differentiable in inputs.
            student: The student in evaluation mode; None for plain DeepInversion.
            labels: Class of each image, int64 [B].
            shape: (C, H, W) of an image.
            g: Generator of the initial images and the shifts, on the CPU.

        Returns:
            Images [B, C, H, W], detached.

        Raises:
            UserError: The teacher has no batch norms with running statistics.
        """
        device = labels.device
        images = torch.randn(len(labels), *shape, generator=g).to(device).requires_grad_()
        optimizer = torch.optim.Adam([images], lr=self.lr, betas=(0.5, 0.9))
        known = running_statistics(teacher)
        for _ in range(self.steps):
            down, right = torch.randint(-self.jitter, self.jitter + 1, (2,), generator=g).tolist()
            with torch.enable_grad(), batch_statistics(teacher) as found:
                moved = images.roll((down, right), (2, 3))
                taught = teacher(moved).logits
                loss = F.cross_entropy(taught, labels) + self.statistics * statistics_distance(found, known)
                loss = loss + self.smooth * roughness(moved) + self.small * moved.flatten(1).norm(dim=1).mean()
                if student is not None:
                    loss = loss + self.compete * sameness(student(moved).logits, taught, self.temperature).mean()
            (images.grad,) = torch.autograd.grad(loss, images)
            optimizer.step()
        return images.detach()


def running_statistics(network: nn.Module) -> Statistics:
    """Running (mean, variance) of each batch norm, in the order of the network's modules."""
    kept = [(m.running_mean, m.running_var) for m in _norms(network)]
    return [(mean, var) for mean, var in kept if mean is not None and var is not None]


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[Statistics]:
    """Within the block, measure the inputs of all batch norms; each forward pass fills the yielded list.

    The order is that of `running_statistics`, not the order of the calls.
    """
    norms = _norms(network)
    found: Statistics = [(torch.empty(0), torch.empty(0))] * len(norms)

    def measured(place: int) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def measure(_: nn.Module, given: tuple[Tensor]) -> None:
            axes = [i for i in range(given[0].dim()) if i != 1]
            found[place] = given[0].mean(axes), given[0].var(axes, unbiased=False)

        return measure

    hooks = [norm.register_forward_pre_hook(measured(place)) for place, norm in enumerate(norms)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _norms(network: nn.Module) -> list[_BatchNorm]:
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        raise UserError(
            f"DeepInversion needs batch norms with running statistics, and a {type(network).__name__} has none; "
            "choose a teacher with batch norms, such as teacher=resnet20, or method=dafl"
        )
    return norms
