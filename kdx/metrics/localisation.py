"""Maps of where a network looks: Grad-CAM and the similarity of two maps."""

import torch
from torch import Tensor
from torch.nn import functional as F


def grad_cam(feature: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Grad-CAM: channels weighted by the mean gradient of the score, summed, without the negative part.

    Args:
        feature: A map [B, C, h, w] that the scores were computed from, with its graph.
        scores: The score of the class of each example, [B].
        size: Height and width of the result, resampled bilinearly.

    Returns:
        float64 [B, H, W], at least 0.

    References:
        Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017.
        https://arxiv.org/abs/1610.02391

    Example:
        >>> feature = torch.tensor([[[[1.0, 2.0]], [[5.0, 0.0]]]], requires_grad=True)  # two channels of 1 x 2
        >>> grad_cam(feature, 2 * feature[:, 0].sum((1, 2)) - feature[:, 1].sum((1, 2)), (1, 2))
        tensor([[[0., 4.]]], dtype=torch.float64)
    """
    (gradient,) = torch.autograd.grad(scores.sum(), feature)
    weights = gradient.double().mean((2, 3), keepdim=True)
    cam = (weights * feature.detach().double()).sum(1, keepdim=True).relu()
    if cam.shape[2:] != size:
        cam = F.interpolate(cam, size, mode="bilinear", align_corners=False)
    return cam[:, 0]


def map_cosine(maps: Tensor, others: Tensor) -> Tensor:
    """Cosine of two maps of each example, [B, H, W] each; 0 where one of them is 0 everywhere.

    Example:
        >>> map_cosine(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[3.0, 0.0]]]))
        tensor([0.6000], dtype=torch.float64)
    """
    a, b = maps.double().flatten(1), others.double().flatten(1)
    lengths = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(lengths > 0, (a * b).sum(1) / lengths.clamp(min=1e-300), 0.0)
