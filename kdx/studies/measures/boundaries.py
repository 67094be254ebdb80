"""Decision boundaries of pairs of networks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.metric import Metric
from kdx.core.ranges import PositiveInt
from kdx.evals.boundary import Boundary
from kdx.models.attack import BoundaryAttack
from kdx.studies.measures.base import Scores, pair
from kdx.tasks.classes import Classes


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
