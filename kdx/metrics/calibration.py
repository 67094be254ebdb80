"""Quality of predicted probabilities: likelihood, Brier score and calibration error."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.metric import Metric
from kdx.core.ranges import PositiveInt
from kdx.metrics.accuracy import topk_correct
from kdx.metrics.base import StreamingMetric


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, in nats, float64 [B].

    Args:
        logits: [B, C].
        labels: Class indices [B].

    Example:
        >>> nll(torch.zeros(1, 10), torch.tensor([3])).exp()  # a uniform prediction over 10 classes
        tensor([10.0000], dtype=torch.float64)
    """
    # gather takes one number per row; log_probs[..., labels] would pair every row with every label
    return -logits.double().log_softmax(1).gather(1, labels[:, None]).squeeze(1)


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """Brier score: squared distance between probabilities and the one-hot label, summed over classes.

    Args:
        logits: [B, C].
        labels: Class indices [B].

    Returns:
        float64 [B], in [0, 2].

    References:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950.
        https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2

    Example:
        A uniform prediction over C classes scores 1 - 1 / C.

        >>> brier(torch.zeros(1, 4), torch.tensor([0]))
        tensor([0.7500], dtype=torch.float64)
    """
    probs = logits.double().softmax(1)
    return (probs - F.one_hot(labels, logits.shape[1])).square().sum(1)


def confidence_bin(confidence: Tensor, bins: int) -> Tensor:
    """Index of the bin (i / bins, (i + 1) / bins] that contains each confidence in (0, 1], int64.

    Example:
        >>> confidence_bin(torch.tensor([0.05, 0.1, 0.11, 1.0], dtype=torch.float64), 10)
        tensor([0, 0, 1, 9])
    """
    edges = torch.arange(1, bins, device=confidence.device, dtype=torch.float64) / bins
    return torch.bucketize(confidence, edges)


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int) -> float:
    """Mean over examples of |accuracy - confidence| of the bin that they fall into, in [0, 1].

    Args:
        logits: [N, C].
        labels: Class indices [N].
        bins: Number of bins of equal width, open below and closed above; 15 in most papers.

    References:
        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017.
        https://arxiv.org/abs/1706.04599

    Example:
        Certain predictions, of which half are wrong, have an error of 1/2.

        >>> logits = torch.tensor([[100.0, 0.0], [100.0, 0.0]])
        >>> expected_calibration_error(logits, torch.tensor([0, 1]), bins=15)
        0.5
    """
    metric = Calibration(bins=bins)
    metric.update(logits, labels)
    return metric.compute()["ece"]


@dataclass(frozen=True)
class ReliabilityBin:
    """A row of the reliability diagram.

    Attributes:
        low: Lower end of the confidences, excluded.
        high: Upper end, included.
        examples: Number of examples in the bin.
        confidence: Their mean confidence; NaN without examples.
        accuracy: The fraction of correct predictions among them; NaN without examples.
    """

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


class Calibration(StreamingMetric):
    """Mean NLL (nats), mean Brier score and ECE, as "nll", "brier", "ece"; and the reliability table.

    Args:
        bins: Number of confidence bins of equal width.
    """

    described = (
        Metric(name="nll", label="NLL", better="lower", shown=True),
        Metric(name="ece", label="ECE", unit="%", digits=2, better="lower", shown=True),
        Metric(name="brier", label="Brier", better="lower"),
    )

    def __init__(self, bins: PositiveInt):
        super().__init__()
        self.bins = bins

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits [B, C], labels [B]."""
        self.count(logits)
        self.add("nll", nll(logits, labels).sum())
        self.add("brier", brier(logits, labels).sum())
        confidence = logits.double().softmax(1).amax(1)
        correct = topk_correct(logits, labels, 1).double()
        # a matrix product with 0s and 1s counts exactly and, unlike scatter-add, gives the same on every run
        member = F.one_hot(confidence_bin(confidence, self.bins), self.bins).double()
        self.add("bins", torch.stack([torch.ones_like(confidence), confidence, correct]) @ member)

    def compute(self) -> dict[str, float]:
        _, confidence, correct = self.total("bins")
        ece = float((confidence - correct).abs().sum() / self.total("examples"))
        return {"nll": self.mean("nll"), "brier": self.mean("brier"), "ece": ece}

    def table(self) -> list[ReliabilityBin]:
        """The reliability diagram, one row per bin."""
        rows = []
        for i, (n, confidence, correct) in enumerate(self.total("bins").T.tolist()):
            means = (confidence / n, correct / n) if n else (float("nan"), float("nan"))
            rows.append(ReliabilityBin(i / self.bins, (i + 1) / self.bins, int(n), *means))
        return rows
