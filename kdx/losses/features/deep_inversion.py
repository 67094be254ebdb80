"""What images should look like to a network that has learnt from images nobody has any more: DeepInversion's losses."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.functional import divergence
from kdx.losses.base.numerics import full_precision, soft_log_probs


def roughness(images: Tensor) -> Tensor:
    """Total variation: the lengths of the differences to the right, below and along both diagonals, summed.

    Args:
        images: [B, C, H, W]; each length is over the whole batch.

    Returns:
        A scalar.

    References:
        Yin, Molchanov, Li, Alvarez, Mallya, Hoiem, Jha, Kautz, "Dreaming to Distill: Data-free Knowledge Transfer
        via DeepInversion", 2020. https://arxiv.org/abs/1912.08795
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
    """How far the statistics of a batch are from those that batch norms keep.

    Args:
        found: (mean, variance) of each channel for each layer, with a graph back to the images.
        known: The same of the training set.

    Returns:
        A scalar: the lengths of the differences of means and of variances, summed over the layers.
    """
    pairs = [(a - c, b - d) for (a, b), (c, d) in zip(found, known, strict=True)]
    return torch.stack([part.norm() for pair in pairs for part in pair]).sum()


@full_precision
def sameness(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """One less the Jensen-Shannon divergence, as a share of the most it can be; both sides get gradients.

    This is the paper's divergence over log 2, the most it can be. The authors' code for CIFAR-10 computes another:
    half of KL(m || p) + KL(m || q) for the mean m, of probabilities clamped to 0.01 and 0.99, without a division.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        temperature: T of both softmaxes; 3 in the paper.

    Returns:
        [B], 1 where both predict the same and 0 where their classes have nothing in common.
    """
    log_p, log_q = soft_log_probs(teacher_logits, temperature), soft_log_probs(student_logits, temperature)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 1 - (divergence(log_p, log_m) + divergence(log_q, log_m)) / (2 * math.log(2))
