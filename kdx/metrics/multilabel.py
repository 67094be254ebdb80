"""Multi-label classification: F1 and Hamming score at thresholds, mean average precision, the choice of thresholds.

A label holds for an example where its target is at least 0.5. A logit that is not finite is counted as the wrong
decision, and is ranked where it does most harm, so that a diverged network never scores well.
"""

import torch
from torch import Tensor

from kdx.core.metric import Metric
from kdx.metrics.base import StreamingMetric


def holds(targets: Tensor) -> Tensor:
    """Which labels hold, bool [B, C], for targets [B, C] in [0, 1].

    Example:
        >>> holds(torch.tensor([[0.0, 0.4, 0.5, 1.0]]))
        tensor([[False, False,  True,  True]])
    """
    return targets >= 0.5


def decide(logits: Tensor, targets: Tensor, thresholds: Tensor | float) -> Tensor:
    """Which labels a network predicts, bool [B, C]: those whose logit reaches the threshold.

    Args:
        logits: [B, C].
        targets: [B, C], in [0, 1]; the decision on a logit that is not finite is the wrong one.
        thresholds: On the scale of the logits, one number or [C]; 0 is a probability of one half.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> decide(torch.tensor([[-1.0, 2.0, torch.nan]]), torch.tensor([[0.0, 1.0, 0.0]]), 0.0)
        tensor([[False,  True,  True]])
    """
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(
            f"multi-label metrics need logits and targets [B, C], got {list(logits.shape)} and {list(targets.shape)}"
        )
    thresholds = torch.as_tensor(thresholds, dtype=torch.float64, device=logits.device)
    return torch.where(logits.isfinite(), logits.double() >= thresholds, ~holds(targets))


def f1(hits: Tensor, predicted: Tensor, positives: Tensor) -> Tensor:
    """F1 from counts, `2 hits / (predicted + positives)`, float64 of the shape of the counts; 0 where both are 0.

    Args:
        hits: Number of predicted labels that hold.
        predicted: Number of predicted labels.
        positives: Number of labels that hold.

    Example:
        >>> f1(torch.tensor([1, 0]), torch.tensor([2, 0]), torch.tensor([1, 0]))
        tensor([0.6667, 0.0000], dtype=torch.float64)
    """
    return 2 * hits.double() / (predicted + positives).clamp(min=1)


class LabelDecisions(StreamingMetric):
    """F1, Hamming and Jaccard scores at fixed thresholds, as "micro_f1", "macro_f1", "hamming" and "jaccard".

    Micro F1 counts all decisions together. Macro F1 is the mean over all C labels, where a label that neither holds nor
    is predicted has F1 0, as in scikit-learn by default. The Hamming score is the share of right decisions, 1 minus
    the Hamming loss. The Jaccard score is the mean over examples of the labels that are predicted and hold, over those
    that are predicted or hold; 1 where there are none. Some code calls it Hamming score.

    Args:
        thresholds: As in `decide`.

    Example:
        >>> metric = LabelDecisions(thresholds=0.0)
        >>> metric.update(torch.tensor([[1.0, -1.0], [2.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> {name: round(value, 4) for name, value in metric.compute().items()}
        {'micro_f1': 0.8, 'macro_f1': 0.8333, 'hamming': 0.75, 'jaccard': 0.75}
    """

    described = (
        Metric(name="micro_f1", label="micro F1", unit="%", digits=2, better="higher", shown=True),
        Metric(name="macro_f1", label="macro F1", unit="%", digits=2, better="higher", shown=True),
        Metric(name="hamming", label="Hamming score", unit="%", digits=2, better="higher"),
        Metric(name="jaccard", label="Jaccard score", unit="%", digits=2, better="higher"),
    )

    def __init__(self, thresholds: Tensor | float):
        super().__init__()
        self.thresholds = thresholds

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count a batch: logits [B, C], targets [B, C] in [0, 1]. Raises ValueError where the shapes differ."""
        predicted, wanted = decide(logits, targets, self.thresholds), holds(targets)
        self.count(logits)
        self.add("hits", (predicted & wanted).sum(0))
        self.add("predicted", predicted.sum(0))
        self.add("positives", wanted.sum(0))
        self.add("right", (predicted == wanted).sum(0))
        both, either = (predicted & wanted).sum(1), (predicted | wanted).sum(1)
        self.add("overlap", torch.where(either > 0, both.double() / either.clamp(min=1), 1.0).sum())

    def compute(self) -> dict[str, float]:
        counts = [self.total(name) for name in ("hits", "predicted", "positives")]
        return {
            "micro_f1": float(f1(*(count.sum() for count in counts))),
            "macro_f1": float(f1(*counts).mean()),
            "hamming": float((self.total("right") / self.total("examples")).mean()),
            "jaccard": float(self.total("overlap") / self.total("examples")),
        }


def average_precision(logits: Tensor, targets: Tensor) -> Tensor:
    """Average precision of each label, `sum over thresholds of (R_n - R_{n-1}) P_n`, float64 [C].

    Recall R and precision P are taken at each distinct logit, so examples with equal logits enter together and their
    order is irrelevant. NaN for a label that holds for no example.

    Args:
        logits: [N, C].
        targets: [N, C], in [0, 1].

    Example:
        >>> average_precision(torch.tensor([[3.0], [2.0], [1.0]]), torch.tensor([[1.0], [0.0], [1.0]]))
        tensor([0.8333], dtype=torch.float64)
    """
    wanted = holds(targets)
    # -inf where the label holds and inf elsewhere: the worst places
    logits = torch.where(logits.isfinite(), logits.double(), torch.where(wanted, -torch.inf, torch.inf))
    ordered, order = logits.sort(0, descending=True)
    hits = wanted.gather(0, order).cumsum(0).double()
    precision = hits / torch.arange(1, len(logits) + 1, device=logits.device)[:, None]
    # at the last of equal logits all of them have entered
    last = torch.ones_like(wanted)
    last[:-1] = ordered[:-1] != ordered[1:]
    found = []
    for label in range(logits.shape[1]):
        at = last[:, label]
        gains = hits[at, label].diff(prepend=hits.new_zeros(1))
        found.append((gains * precision[at, label]).sum() / hits[-1, label])
    return torch.stack(found)


class LabelRanking(StreamingMetric):
    """Mean average precision, as "map"; it keeps all logits and labels, for `thresholds` too.

    The mean is over the labels that hold for at least one example; "map" is NaN where there is none. With float32
    logits it keeps 5 bytes for each example and label. Merging appends rows; their order does not matter.

    Example:
        >>> metric = LabelRanking()
        >>> metric.update(torch.tensor([[3.0, 0.0], [2.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        >>> metric.compute()
        {'map': 1.0}
    """

    described = (Metric(name="map", label="mAP", unit="%", digits=2, better="higher", shown=True),)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Keep a batch: logits [B, C], targets [B, C] in [0, 1]."""
        self.add("logits", logits)
        self.add("labels", holds(targets))

    def add(self, name: str, amount: Tensor) -> None:
        """Append rows to those that are kept."""
        rows = amount.detach()
        self.sums[name] = torch.cat([self.sums[name], rows]) if name in self.sums else rows.clone()

    def compute(self) -> dict[str, float]:
        return {"map": float(average_precision(self.total("logits"), self.total("labels").double()).nanmean())}

    def thresholds(self, per_label: bool) -> Tensor:
        """The thresholds with the largest F1 on these examples, see `best_thresholds`."""
        return best_thresholds(self.total("logits"), self.total("labels").double(), per_label)


def best_thresholds(logits: Tensor, targets: Tensor, per_label: bool) -> Tensor:
    """Thresholds for `decide` with the largest F1, found exactly; to be chosen on validation data.

    F1 changes at the logits alone, so one threshold between each two of them is tried: the middle, or 0 where that lies
    between. Of equally good ones, the nearest to 0 is taken, then the larger. A label that holds for no example
    therefore keeps 0, a probability of one half. Logits that are not finite count as wrong at every threshold.

    Args:
        logits: [N, C].
        targets: [N, C], in [0, 1].
        per_label: Whether each label has a threshold of its own, with the largest F1 of the label; otherwise one
            threshold, with the largest micro F1, serves all.

    Returns:
        On the scale of the logits, float64 [C].

    Example:
        >>> logits, targets = torch.tensor([[-3.0], [-2.0], [4.0]]), torch.tensor([[0.0], [1.0], [1.0]])
        >>> best_thresholds(logits, targets, per_label=True)
        tensor([-2.5000], dtype=torch.float64)
    """
    wanted = holds(targets)
    if not per_label:
        return _best(logits.flatten(), wanted.flatten()).expand(logits.shape[1]).clone()
    return torch.stack([_best(logits[:, label], wanted[:, label]) for label in range(logits.shape[1])])


def _best(logits: Tensor, wanted: Tensor) -> Tensor:
    """The threshold with the largest F1 over decisions, logits [M] and bool [M]."""
    finite = logits.isfinite()
    values, counts, hits = _levels(logits[finite].double(), wanted[finite])
    # at level i all logits from value i on are predicted; behind the last level, none
    zero = counts.new_zeros(1)
    hits, predicted = (torch.cat([t.flip(0).cumsum(0).flip(0), zero]) for t in (hits, counts))
    scores = f1(hits, predicted + (~finite & ~wanted).sum(), wanted.sum())
    low = torch.cat([values.new_tensor([-torch.inf]), values])  # excluded
    high = torch.cat([values, values.new_tensor([torch.inf])])  # included
    middle = (low + high) / 2
    # two neighbouring numbers have no third between them, and below the lowest logit there is no middle
    tried = torch.where((low < middle) & (middle <= high), middle, high)
    tried = torch.where((low < 0) & (high >= 0), 0.0, tried)
    best = tried[scores == scores.max()]
    nearest = best[best.abs() == best.abs().min()]
    return nearest.max()


def _levels(values: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct values in ascending order, how often each occurs, and with how many labels that hold."""
    levels, places, counts = values.unique(return_inverse=True, return_counts=True)
    hits = torch.zeros_like(counts).index_add(0, places, wanted.to(counts.dtype))
    return levels, counts, hits
