"""Predicted classes and probabilities of pairs of networks."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.metric import Metric
from kdx.metrics.accuracy import topk_correct
from kdx.metrics.fidelity import agreement, prediction_divergence
from kdx.studies.measures.base import Scores, count, pair


@dataclass(frozen=True)
class Predictions:
    """Compares predicted classes and probabilities.

    A row for each network has its "accuracy"; a row for each ordered pair "A / B" has the columns that `notes` defines.
    The win rate is left out where B makes no error.
    """

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(name="accuracy", label="accuracy", unit="%", digits=2, better="higher", shown=True),
        Metric(name="agreement", label="agreement", unit="%", digits=2, better="higher", shown=True),
        Metric(name="wins", label="wins", unit="%", digits=2, better="higher", shown=True),
        Metric(name="win rate", label="win rate", unit="%", digits=2, better="higher", shown=True),
        Metric(name="KL", label="KL(A‖B) T=1", unit="nats", better="lower", shown=True),
    )
    notes: ClassVar[Sequence[str]] = (
        "A / B: agreement is the share of the examples on which A and B predict the same class; wins, on which A is "
        "right and B is wrong; the win rate is the share of B's errors on which A is right",
        "KL: mean KL(A || B) of the predicted probabilities at temperature 1, in nats",
    )

    @torch.no_grad()
    def __call__(self, networks: Mapping[str, nn.Module], batches: Iterable[Batch]) -> Scores:
        sums: defaultdict[tuple[str, str], float] = defaultdict(float)
        errors: defaultdict[str, int] = defaultdict(int)
        seen = 0
        for batch in batches:
            seen += len(batch)
            logits = {name: net(batch.inputs).logits for name, net in networks.items()}
            right = {name: topk_correct(rows, batch.labels, 1) for name, rows in logits.items()}
            for name in networks:
                sums[name, "accuracy"] += count(right[name])
                errors[name] += count(~right[name])
            for one, other in permutations(networks, 2):
                row = pair(one, other)
                sums[row, "agreement"] += count(agreement(logits[one], logits[other]))
                sums[row, "wins"] += count(right[one] & ~right[other])
                sums[row, "KL"] += float(prediction_divergence(logits[one], logits[other]).sum())
        scores: Scores = defaultdict(dict)
        for (row, column), value in sums.items():
            scores[row][column] = value / seen
        for one, other in permutations(networks, 2):
            if errors[other]:
                scores[pair(one, other)]["win rate"] = sums[pair(one, other), "wins"] / errors[other]
        return dict(scores)
