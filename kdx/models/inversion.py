"""Images found by gradient descent that a network takes for what it was trained on."""

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
    """Adam on the pixels of a batch: the label's class, the training set's statistics, smooth and small images.

    With a student, images on which it agrees with its teacher are avoided (Adaptive DeepInversion).

    Attributes:
        steps: Steps of Adam, whose betas are 0.5 and 0.9.
        lr: Its rate.
        statistics: Weight of the distance to the batch norms' means and variances.
        smooth: Weight of the total variation.
        small: Weight of the mean length of an image.
        compete: Weight of the agreement with the student; without one it has no effect.
        temperature: Of both softmaxes in it.
        jitter: Most pixels by which the batch is shifted, round the edges, before each step.

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
        """Normalised images of some classes.

        Args:
            teacher: A network that returns `Outputs`, in evaluation mode, with batch norms and a graph to its inputs.
            student: Another, in evaluation mode, to compete with; None for none.
            labels: Class of each image, int64 [B].
            shape: (C, H, W).
            g: Where they start and how they are shifted; on the CPU.

        Returns:
            [B, C, H, W], without a graph.

        Raises:
            UserError: The teacher has no batch norms with running statistics.
        """
        device = labels.device
        images = torch.randn(len(labels), *shape, generator=g).to(device).requires_grad_()
        optimizer = torch.optim.Adam([images], lr=self.lr, betas=(0.5, 0.9))
        known = kept_statistics(teacher)
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


def kept_statistics(network: nn.Module) -> Statistics:
    """(mean, variance) of each channel that batch norms keep, in the order of the network's modules."""
    kept = [(m.running_mean, m.running_var) for m in _norms(network)]
    return [(mean, var) for mean, var in kept if mean is not None and var is not None]


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[Statistics]:
    """Within the block, what batch norms are given is measured: a list that fills with each forward pass.

    Its order is that of `kept_statistics`, whatever that of the calls.
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
            f"DeepInversion goes by the statistics that batch norms keep, and a {type(network).__name__} has none; "
            "choose a teacher with batch norms, such as teacher=resnet20, or method=dafl"
        )
    return norms
