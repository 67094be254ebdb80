"""Linear CKA: similarity of two representations, independent of their bases and widths."""

import math

import torch
from torch import Tensor

from kdx.metrics.base import StreamingMetric

ROUNDING = 1e-12
"""Share of the uncentred products below which the variation of a feature is rounding noise."""


def as_vectors(features: Tensor) -> Tensor:
    """One float64 vector per example: the mean over positions of maps [N, D, H, W], or over tokens [N, L, D].

    Raises:
        ValueError: The features are neither vectors, tokens nor maps.

    Example:
        >>> as_vectors(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """
    axes = {2: (), 3: (1,), 4: (2, 3)}
    if features.ndim not in axes:
        raise ValueError(f"CKA reads vectors, tokens or maps (2 to 4 axes), got shape {tuple(features.shape)}")
    features = features.double()
    return features.mean(axes[features.ndim]) if axes[features.ndim] else features


def linear_cka(x: Tensor, y: Tensor) -> float:
    """`||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)` of features centred over examples, in [0, 1].

    Invariant to rotations and to a common scale of either side; 1 where one is such a change of the other.

    Args:
        x: Features [N, ...], see `as_vectors`.
        y: Features [N, ...] of the same examples; the width may differ.

    Returns:
        The similarity; NaN where one side is the same for all examples.

    References:
        Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", 2019.
        https://arxiv.org/abs/1905.00414

    Example:
        >>> x = torch.randn(20, 3)
        >>> rotation = torch.linalg.qr(torch.randn(3, 3)).Q
        >>> abs(linear_cka(x, 2 * x @ rotation) - 1) < 1e-6
        True
    """
    metric = CKA()
    metric.update(x, y)
    return metric.compute()["cka"]


class CKA(StreamingMetric):
    """Linear CKA of a whole data set, as "cka", without storing its features.

    It is not the mean of the batches' CKA, which is biased upwards: the uncentred products are summed, and centred at
    the end. The state has (D + D')^2 numbers.
    """

    def __init__(self):
        super().__init__()
        self.width = 0

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add a batch: features of both networks for the same examples, see `as_vectors`."""
        x, y = as_vectors(x), as_vectors(y)
        self.width = x.shape[1]
        # the product of the concatenated sides with itself contains all blocks
        joint = torch.cat([x, y], 1)
        self.count(joint)
        self.add("sum", joint.sum(0))
        self.add("products", joint.T @ joint)

    def compute(self) -> dict[str, float]:
        raw = self.total("products")
        mean = self.total("sum") / self.total("examples")
        centred = raw - self.total("examples") * mean[:, None] * mean
        x, y = slice(self.width), slice(self.width, None)
        for side in (x, y):
            # rounding noise of a constant is not variation
            if centred[side, side].norm() <= ROUNDING * raw[side, side].norm():
                return {"cka": math.nan}
        own, other = centred[x, x].norm(), centred[y, y].norm()
        return {"cka": float(centred[y, x].square().sum() / (own * other))}
