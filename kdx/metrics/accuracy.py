"""Top-k accuracy, and accuracy among some classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.metric import Metric
from kdx.core.ranges import PositiveInt
from kdx.metrics.base import StreamingMetric


def rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of classes ranked before the label; 0 where the label is the prediction.

    Equal logits are ordered by class index, as in `argmax`. NaN ranks before the label, so that a diverged network is
    never correct by accident.

    Args:
        logits: [B, C].
        labels: Class indices [B].

    Returns:
        int64 [B].

    Example:
        >>> rank(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([2]))
        tensor([1])
    """
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    # negated comparisons, so that NaN ranks before the label
    return torch.where(earlier, ~(logits < own), ~(logits <= own)).sum(1)


def topk_correct(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the k largest logits, bool [B].

    Args:
        logits: [B, C].
        labels: Class indices [B].
        k: From 1 to C.

    Raises:
        ValueError: k is out of range.

    Example:
        >>> logits = torch.tensor([[0.1, 0.7, 0.2]])
        >>> topk_correct(logits, torch.tensor([2]), 1), topk_correct(logits, torch.tensor([2]), 2)
        (tensor([False]), tensor([True]))
    """
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"top-k needs k from 1 to the number of classes {logits.shape[1]}, got {k}")
    return rank(logits, labels) < k


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the prediction is the label, bool [B]; False where a logit is NaN, and for labels below 0.

    Args:
        logits: [B, C].
        labels: Class indices [B]; below 0 where unknown.

    Example:
        >>> correct(torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]), torch.tensor([1, 0]))
        tensor([ True, False])
    """
    return (logits.argmax(1) == labels) & ~logits.isnan().any(1)


class TopK(StreamingMetric):
    """Fractions of examples whose label is among the k largest logits, as "top1", "top5", ...

    Args:
        ks: The k to report, each at most the number of classes.
    """

    described = (
        Metric(name="top1", label="top-1", unit="%", digits=2, better="higher", shown=True),
        Metric(name="top5", label="top-5", unit="%", digits=2, better="higher", shown=True),
    )

    def __init__(self, ks: Sequence[PositiveInt]):
        super().__init__()
        self.ks = tuple(ks)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits [B, C], labels [B]."""
        self.count(logits)
        for k in self.ks:
            self.add(f"top{k}", topk_correct(logits, labels, k).sum())

    def compute(self) -> dict[str, float]:
        return {f"top{k}": self.mean(f"top{k}") for k in self.ks}


def right_among(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Correctness of the predictions among some classes alone, for the examples of these classes: conditional accuracy.

    Args:
        logits: [B, |S|], of these classes in their order.
        labels: Class of each example, int64 [B].
        classes: The classes S.

    Returns:
        bool [n], for the n examples of these classes, in order.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5.
        https://arxiv.org/abs/1503.02531

    Example:
        >>> logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> right_among(logits, torch.tensor([4, 7, 2]), [4, 7])
        tensor([ True, False])
    """
    places = labels[:, None] == torch.tensor(list(classes), device=labels.device)
    own = places.any(1)
    return topk_correct(logits[own], places[own].int().argmax(1), 1)
