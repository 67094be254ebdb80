"""Perplexity and accuracy of predicted tokens."""

import math

import torch
from torch import Tensor

from kdx.core.metric import Metric
from kdx.metrics.accuracy import correct
from kdx.metrics.base import StreamingMetric

ROWS = 256
"""Tokens whose probabilities are computed in float64 at a time; a vocabulary has 30,000 of them."""


class TokenPrediction(StreamingMetric):
    """Prediction of tokens: "perplexity", "token_accuracy" and "token_nll", over all counted tokens.

    "token_nll" is the mean negative log-likelihood of a token in nats, perplexity its exponential.

    Example:
        A uniform prediction over 7 tokens has perplexity 7.

        >>> metric = TokenPrediction()
        >>> metric.update(torch.zeros(2, 7), torch.tensor([0, 3]))
        >>> {name: round(value, 4) for name, value in metric.compute().items()}
        {'perplexity': 7.0, 'token_accuracy': 0.5, 'token_nll': 1.9459}
    """

    described = (
        Metric(name="perplexity", label="perplexity", digits=2, better="lower", shown=True),
        Metric(name="token_accuracy", label="token accuracy", unit="%", digits=2, better="higher", shown=True),
        Metric(name="token_nll", label="NLL per token", unit="nats", better="lower"),
    )

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count tokens: logits [N, V] and their ids [N]; N may be 0."""
        self.count(logits)
        self.add("correct", correct(logits, labels).sum())
        nll = torch.zeros((), dtype=torch.float64, device=logits.device)
        for part, ids in zip(logits.split(ROWS), labels.split(ROWS), strict=True):
            nll += torch.nn.functional.cross_entropy(part.double(), ids, reduction="sum")
        self.add("nll", nll)

    def compute(self) -> dict[str, float]:
        """The metrics; NaN where no token counts."""
        if not float(self.total("examples")):
            return dict.fromkeys(("perplexity", "token_accuracy", "token_nll"), math.nan)
        nll = self.mean("nll")
        perplexity = math.exp(nll) if nll < math.log(torch.finfo(torch.float64).max) else math.inf
        return {"perplexity": perplexity, "token_accuracy": self.mean("correct"), "token_nll": nll}
