"""DeepInversion's losses on generated images: smoothness, batch-norm statistics and disagreement with a student."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.functional import divergence
from kdx.losses.base.numerics import full_precision, soft_log_probs


def roughness(images: Tensor) -> Tensor:
    """Total variation: the norms of the differences to the right, downwards and along both diagonals, summed.

    Args:
        images: [B, C, H, W]; each norm is over the whole batch.

    Returns:
        A scalar.

    References:
        Yin, Molchanov, Li, Alvarez, Mallya, Hoiem, Jha, Kautz, "Dreaming to Distill: Data-free Knowledge Transfer
        via DeepInversion", 2020. https://arxiv.org/abs/1912.08795

    Example:
        >>> roughness(torch.ones(2, 3, 8, 8))
        tensor(0.)
    """
    x = images
    differences = (
        x[..., :, 1:] - x[..., :, :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, 1:] - x[..., :-1, :-1],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    )
    return torch.stack([d.norm() for d in differences]).sum()


def statistics_distance(found: Sequence[tuple[Tensor, Tensor]], known: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Distance of a batch's statistics from the running statistics of the batch norms.

    Args:
        found: (mean, variance) of each channel for each layer, with a graph back to the images.
        known: (running mean, running variance) of the same layers.

    Returns:
        A scalar: the norms of the differences of means and of variances, summed over the layers.

    Example:
        >>> zeros, ones = torch.zeros(4), torch.ones(4)
        >>> statistics_distance([(ones, ones)], [(zeros, ones)])
        tensor(2.)
    """
    pairs = [(a - c, b - d) for (a, b), (c, d) in zip(found, known, strict=True)]
    return torch.stack([part.norm() for pair in pairs for part in pair]).sum()


@full_precision
def sameness(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """One minus the Jensen-Shannon divergence divided by its maximum log 2; gradients reach both sides.

    This is the paper's divergence over log 2. The authors' code for CIFAR-10 computes another quantity: half of
    KL(m || p) + KL(m || q) for the mean m, of probabilities clamped to 0.01 and 0.99, without a division.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        temperature: T of both softmaxes; 3 in the paper.

    Returns:
        [B], 1 where the distributions are equal and 0 where they have no class in common.

    Example:
        >>> certain = torch.tensor([[100.0, 0.0]])
        >>> sameness(certain, certain, 1.0), sameness(certain, certain.flip(1), 1.0)
        (tensor([1.]), tensor([0.]))
    """
    log_p, log_q = soft_log_probs(teacher_logits, temperature), soft_log_probs(student_logits, temperature)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 1 - (divergence(log_p, log_m) + divergence(log_q, log_m)) / (2 * math.log(2))
