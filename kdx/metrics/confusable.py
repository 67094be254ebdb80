"""Classes that a network confuses: clusters of the columns of the covariance of its predictions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.functional import unit
from kdx.core.ranges import PositiveInt
from kdx.core.seed import generator
from kdx.metrics.base import StreamingMetric


class Covariance(StreamingMetric):
    """Covariance [C, C] of a network's predicted probabilities over examples; it needs no labels."""

    def update(self, logits: Tensor) -> None:
        """Add a batch: logits [B, C]."""
        probs = logits.double().softmax(1)
        self.count(logits)
        self.add("sum", probs.sum(0))
        self.add("products", probs.T @ probs)

    def matrix(self) -> Tensor:
        """The covariance, float64, divided by the number of examples."""
        n = self.total("examples")
        mean = self.total("sum") / n
        return self.total("products") / n - mean.outer(mean)


def k_means(points: Tensor, clusters: PositiveInt, seed: int, restarts: PositiveInt, steps: PositiveInt) -> Tensor:
    """Lloyd's k-means from k-means++ starts; the best of several starts by the sum of squared distances.

    A cluster without points takes the point that is farthest from its own centre.

    Args:
        points: [N, D].
        clusters: From 1 to N.
        seed: Seed of the starts.
        restarts: Number of starts.
        steps: Limit on the iterations of one start.

    Returns:
        Cluster of each point, int64 [N], numbered in the order of their first points.

    Raises:
        ValueError: More clusters than points.

    References:
        Arthur, Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007.
        https://dl.acm.org/doi/10.5555/1283383.1283494

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
        >>> k_means(points, 2, seed=0, restarts=3, steps=10)
        tensor([0, 0, 1, 1])
    """
    if clusters > len(points):
        raise ValueError(f"{len(points)} points cannot make {clusters} clusters")
    points = points.double().cpu()
    found = [_lloyd(points, _starts(points, clusters, seed, i), steps) for i in range(restarts)]
    assigned = min(found, key=lambda one: float(one[1]))[0]
    names = {cluster: i for i, cluster in enumerate(dict.fromkeys(assigned.tolist()))}
    return torch.tensor([names[cluster] for cluster in assigned.tolist()])


def _starts(points: Tensor, clusters: int, seed: int, restart: int) -> Tensor:
    draws = generator(seed, "k-means", restart)
    chosen = [int(torch.randint(len(points), (1,), generator=draws))]
    while len(chosen) < clusters:
        distance = torch.cdist(points, points[chosen]).amin(1) ** 2
        distance[chosen] = 0.0
        if distance.sum() == 0:  # all remaining points equal a chosen one
            distance = torch.ones(len(points), dtype=torch.float64).index_fill(0, torch.tensor(chosen), 0.0)
        chosen.append(int(torch.multinomial(distance, 1, generator=draws)))
    return points[chosen]


def _lloyd(points: Tensor, centres: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    assigned = torch.full((len(points),), -1)
    for _ in range(steps):
        distance = torch.cdist(points, centres)
        nearest = distance.argmin(1)
        own = distance.gather(1, nearest[:, None]).flatten()
        for cluster in range(len(centres)):
            if not (nearest == cluster).any():
                far = int(own.argmax())
                nearest[far], own[far] = cluster, 0.0
        if torch.equal(nearest, assigned):
            break
        assigned = nearest
        centres = torch.stack([points[assigned == cluster].mean(0) for cluster in range(len(centres))])
    return assigned, ((points - centres[assigned]) ** 2).sum()


def confusable_classes(
    covariance: Tensor,
    clusters: PositiveInt,
    components: PositiveInt | None,
    seed: int,
    restarts: PositiveInt,
    steps: PositiveInt,
) -> list[list[int]]:
    """Sets of classes that a network often predicts together, largest first.

    Each class is a point: its column of the covariance, so that classes which vary with the same others are close.

    The columns of a mostly correct network are nearly orthogonal, and any partition of such points is as good as
    another: k-means then leaves all classes but a few in one set. Compared by their directions in the leading
    components of the correlation, the classes fall into sets that are confused with each other.

    Args:
        covariance: [C, C], of predictions.
        components: Number of leading eigenvectors of the correlation in which classes are compared; None compares the
            columns of the covariance, as in the paper.
        clusters, seed, restarts, steps: As in `k_means`.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5.
        https://arxiv.org/abs/1503.02531

    Example:
        >>> covariance = torch.block_diag(torch.full((2, 2), 3.0), torch.ones(1, 1))
        >>> confusable_classes(covariance, 2, None, seed=0, restarts=3, steps=10)
        [[0, 1], [2]]
    """
    points = covariance.T
    if components is not None:
        spread = covariance.diagonal().clamp(min=torch.finfo(covariance.dtype).tiny).sqrt()
        values, vectors = torch.linalg.eigh(covariance / spread.outer(spread))
        points = unit(vectors[:, -components:] * values[-components:].clamp(min=0).sqrt(), 1)
    assigned = k_means(points, clusters, seed, restarts, steps).tolist()
    sets: Sequence[list[int]] = [[c for c, of in enumerate(assigned) if of == k] for k in range(clusters)]
    return sorted(sets, key=lambda classes: (-len(classes), classes))
