"""Measurements of pairs of trained networks; see `kdx.studies.networks`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.metric import Metric
from kdx.core.ranges import PositiveInt
from kdx.evals.boundary import Boundary
from kdx.metrics.accuracy import topk_correct
from kdx.metrics.fidelity import agreement, prediction_divergence
from kdx.models.attack import BoundaryAttack
from kdx.tasks.classes import Classes

Scores = dict[str, dict[str, float]]


def pair(one: str, other: str) -> str:
    """Row of an ordered pair of networks.

    Example:
        >>> pair("KD", "teacher")
        'KD / teacher'
    """
    return f"{one} / {other}"


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
                sums[name, "accuracy"] += _count(right[name])
                errors[name] += _count(~right[name])
            for one, other in permutations(networks, 2):
                row = pair(one, other)
                sums[row, "agreement"] += _count(agreement(logits[one], logits[other]))
                sums[row, "wins"] += _count(right[one] & ~right[other])
                sums[row, "KL"] += float(prediction_divergence(logits[one], logits[other]).sum())
        scores: Scores = defaultdict(dict)
        for (row, column), value in sums.items():
            scores[row][column] = value / seen
        for one, other in permutations(networks, 2):
            if errors[other]:
                scores[pair(one, other)]["win rate"] = sums[pair(one, other), "wins"] / errors[other]
        return dict(scores)


@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """Compares decision boundaries: `kdx.evals.boundary` for each ordered pair "A / B", with A as the student.

    Attributes:
        attack: Moves examples to a boundary.
        targets: Classes that each example is moved towards: the most likely others of B; None for all others.
    """

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(name="magsim", label="MagSim", digits=3, better="higher", shown=True),
        Metric(name="angsim", label="AngSim", digits=3, better="higher", shown=True),
        Metric(name="reached", label="reached", unit="%", digits=2, shown=True),
    )
    notes: ClassVar[Sequence[str]] = (
        "A / B: each example that both classify correctly is moved to the boundary of A and to that of B, towards the "
        "same class; magsim compares the lengths, angsim the directions, and 1 means equal boundaries; reached is the "
        "share of the examples that crossed both",
    )

    attack: BoundaryAttack
    targets: PositiveInt | None

    def __call__(self, networks: Mapping[str, nn.Module], batches: Iterable[Batch]) -> Scores:
        first = next(iter(batches))
        with torch.no_grad():
            task = Classes(next(iter(networks.values()))(first.inputs).logits.shape[1])
        evaluator = Boundary(
            loaders={"": batches},
            device=first.index.device,
            task=task,
            split="",
            attack=self.attack,
            targets=self.targets,
            every=None,
        )
        scores: Scores = {}
        for one, other in permutations(networks, 2):
            found = evaluator.run({"student": networks[one], "teacher": networks[other]})
            scores[pair(one, other)] = {name.rpartition("/")[2]: value for name, value in found.items()}
        return scores


def _count(mask: Tensor) -> int:
    return int(mask.sum())
