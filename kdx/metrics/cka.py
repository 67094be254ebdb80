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
    """`HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))` with the unbiased estimator of HSIC, K = X X^T and L = Y Y^T.

    Invariant to rotations, shifts and a common scale of either side; 1 where one is such a change of the other. About
    0 for independent features, however wide: the biased estimator gives them D / N and more.

    Args:
        x: Features [N, ...], see `as_vectors`.
        y: Features [N, ...] of the same examples; the width may differ.

    Returns:
        The similarity, clamped to [0, 1]; NaN for fewer than 4 examples, or where one side is the same for all.

    References:
        Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", 2019.
        https://arxiv.org/abs/1905.00414
        Song, Smola, Gretton, Bedo, Borgwardt, "Feature Selection via Dependence Maximization", 2012, equation 4.
        https://jmlr.org/papers/v13/song12a.html
        Nguyen, Raghu, Kornblith, "Do Wide and Deep Networks Learn the Same Things?", 2021.
        https://arxiv.org/abs/2010.15327

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

    It is not the mean of the batches' CKA: sums over the examples give the unbiased estimator of all of them. The
    state has (D + D')^2 numbers.
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
        squares = torch.stack([x.square().sum(1), y.square().sum(1)])
        self.count(joint)
        self.add("sum", joint.sum(0))
        self.add("products", joint.T @ joint)
        # the diagonals of both Gram matrices, which the unbiased estimator leaves out
        self.add("squares", squares.sum(1))
        self.add("weighted", squares @ joint)
        self.add("diagonals", squares @ squares.T)

    def compute(self) -> dict[str, float]:
        count, raw, total = float(self.total("examples")), self.total("products"), self.total("sum")
        mean = total / count
        centred = raw - count * mean[:, None] * mean
        sides = (slice(self.width), slice(self.width, None))
        # rounding noise of a constant is not variation
        constant = any(centred[s, s].norm() <= ROUNDING * raw[s, s].norm() for s in sides)
        if constant or count < 4:
            return {"cka": math.nan}
        own, other, both = self._hsic(0, 0), self._hsic(1, 1), self._hsic(0, 1)
        if min(own, other) <= 0:
            return {"cka": math.nan}
        return {"cka": min(1.0, max(0.0, both / math.sqrt(own * other)))}

    def _hsic(self, i: int, j: int) -> float:
        """N (N - 3) times the unbiased HSIC of two sides, from sums over examples."""
        sides = (slice(self.width), slice(self.width, None))
        a, b, n = sides[i], sides[j], float(self.total("examples"))
        total, squares, weighted = self.total("sum"), self.total("squares"), self.total("weighted")
        products, diagonal = self.total("products")[a, b], self.total("diagonals")[i, j]
        trace = products.square().sum() - diagonal
        sums = [total[s].square().sum() - squares[k] for s, k in ((a, i), (b, j))]
        rows = total[a] @ products @ total[b] - total[a] @ weighted[j, a] - weighted[i, b] @ total[b] + diagonal
        return float(trace + sums[0] * sums[1] / ((n - 1) * (n - 2)) - 2 * rows / (n - 2))
