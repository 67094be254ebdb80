"""Linear CKA: how alike two representations are, whatever their bases and widths."""

import math

import torch
from torch import Tensor

from kdx.metrics.base import StreamingMetric

ROUNDING = 1e-12
"""Share of the uncentred products below which the variation of a feature is rounding noise."""


def as_vectors(features: Tensor) -> Tensor:
    """One float64 vector an example: maps [N, D, H, W] are averaged over positions, tokens [N, L, D] over tokens.

    Raises:
        ValueError: The features are neither vectors, tokens nor maps.
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
    """
    metric = CKA()
    metric.update(x, y)
    return metric.compute()["cka"]


class CKA(StreamingMetric):
    """Linear CKA of a whole data set, as "cka", without keeping its features.

    Not a mean of the batches' CKA, which is biased upwards: the uncentred products are summed and centred
    at the end. The state has (D + D')^2 numbers in all.
    """

    def __init__(self):
        super().__init__()
        self.width = 0

    def update(self, x: Tensor, y: Tensor) -> None:
        """Count a batch: features of both networks for the same examples, see `as_vectors`."""
        x, y = as_vectors(x), as_vectors(y)
        self.width = x.shape[1]
        # the product of both sides, put next to each other, with itself holds every block that is needed
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
            # what rounding leaves of a constant is not variation
            if centred[side, side].norm() <= ROUNDING * raw[side, side].norm():
                return {"cka": math.nan}
        own, other = centred[x, x].norm(), centred[y, y].norm()
        return {"cka": float(centred[y, x].square().sum() / (own * other))}
