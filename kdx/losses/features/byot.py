"""BYOT's hint: the difference of two feature vectors where either is active."""

import torch
from torch import Tensor

from kdx.losses.base.numerics import full_precision


@full_precision
def active_difference(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Sum of the squared differences over the positions at which either feature is positive.

    Args:
        student_features: [B, ...].
        teacher_features: [B, ...]; gets no gradient.

    Returns:
        [B].

    References:
        Zhang, Song, Gao, Chen, Bao, Ma, "Be Your Own Teacher", 2019. https://arxiv.org/abs/1905.08094

    Example:
        >>> active_difference(torch.tensor([[1.0, -2.0]]), torch.tensor([[-1.0, -5.0]]))
        tensor([4.])
    """
    target = teacher_features.detach()
    active = (student_features > 0) | (target > 0)
    return torch.where(active, student_features - target, 0.0).square().flatten(1).sum(1)
