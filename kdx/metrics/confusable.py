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
        """Count a batch: logits [B, C]."""
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
    """Lloyd's k-means from k-means++ starts; of several, the one with the smallest sum of squared distances.

    A cluster that runs empty takes the point that is farthest from its own centre.

    Args:
        points: [N, D].
        clusters: From 1 to N.
        seed: Of the starts.
        restarts: Number of starts.
        steps: Limit on the rounds of one start.

    Returns:
        Cluster of each point, int64 [N], numbered in the order of their first points.

    Raises:
        ValueError: More clusters than points.

    References:
        Arthur, Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007.
        https://dl.acm.org/doi/10.5555/1283383.1283494
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
        if distance.sum() == 0:  # all that is left equals one that is chosen
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

    Each class is a point: its column of the covariance, so that alike are those that vary with the same others.

    A network that is mostly right has columns that are nearly orthogonal, and of such points any partition is as good
    as another: k-means then leaves all classes but a few in one set. Compared by their directions in the leading
    components of the correlation, they fall into sets of what is confused.

    Args:
        covariance: [C, C], of predictions.
        components: Leading eigenvectors of the correlation that classes are compared in; None for the columns of the
            covariance as they are, which is the paper's.
        clusters, seed, restarts, steps: As in `k_means`.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5.
        https://arxiv.org/abs/1503.02531
    """
    points = covariance.T
    if components is not None:
        spread = covariance.diagonal().clamp(min=torch.finfo(covariance.dtype).tiny).sqrt()
        values, vectors = torch.linalg.eigh(covariance / spread.outer(spread))
        points = unit(vectors[:, -components:] * values[-components:].clamp(min=0).sqrt(), 1)
    assigned = k_means(points, clusters, seed, restarts, steps).tolist()
    sets: Sequence[list[int]] = [[c for c, of in enumerate(assigned) if of == k] for k in range(clusters)]
    return sorted(sets, key=lambda classes: (-len(classes), classes))
