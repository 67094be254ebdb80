"""Accuracy by group, where a target of the data names the groups."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.studies.measures.base import Examples, Scores, count


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Accuracy of each network in each group of examples, and the smallest group's distance to the largest.

    Attributes:
        target: Target of the data set that holds the group of each example, int64, such as "domain".
        names: Name of each group, by its number.

    References:
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023.
        https://arxiv.org/abs/2205.16004
    """

    notes: ClassVar[Sequence[str]] = (
        "a column for each group: accuracy on its examples; spread: largest minus smallest of them",
    )

    target: str
    names: Sequence[str]

    @property
    def metrics(self) -> Sequence[Metric]:
        of = [Metric(name=n, label=n, unit="%", digits=2, better="higher", shown=True) for n in self.names]
        return [*of, Metric(name="spread", label="spread", unit="%", digits=2, better="lower", shown=True)]

    @torch.no_grad()
    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Scores:
        right, seen = defaultdict[tuple[str, int], int](int), defaultdict[int, int](int)
        for batch in batches:
            group = batch.target(self.target)
            if not 0 <= int(group.min()) <= int(group.max()) < len(self.names):
                raise UserError(
                    f"study.measure.names: target '{self.target}' has the groups {int(group.min())} to "
                    f"{int(group.max())}, but there are {len(self.names)} names"
                )
            for number in range(len(self.names)):
                seen[number] += count(group == number)
            for name, net in networks.items():
                correct = net(batch.inputs).logits.argmax(1) == batch.labels
                for number in range(len(self.names)):
                    right[name, number] += count(correct & (group == number))
        scores: Scores = {}
        for name in networks:
            of = {g: right[name, i] / seen[i] for i, g in enumerate(self.names) if seen[i]}
            scores[name] = {**of, "spread": max(of.values()) - min(of.values())}
        return scores
