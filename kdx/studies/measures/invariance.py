"""Whether predictions stay when images change in a way that the teacher was trained to ignore."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from kdx.core.metric import Metric
from kdx.core.ranges import Count
from kdx.core.seed import generator
from kdx.metrics.fidelity import agreement
from kdx.studies.measures.base import Examples, Scores, count


class Change(Protocol):
    """A random change of images [B, C, H, W] with values from 0 to 1."""

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Invariance:
    """Share of examples whose predicted class is the same before and after a change; all networks see the same images.

    Attributes:
        changes: Changes by the name of their column.
        seed: Seed of the changes.

    References:
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023.
        https://arxiv.org/abs/2205.16004
    """

    notes: ClassVar[Sequence[str]] = (
        "under X: share of the examples for which the network predicts the same class before and after the change X",
    )

    changes: Mapping[str, Change]
    seed: Count

    @property
    def metrics(self) -> Sequence[Metric]:
        names = ["accuracy", *(f"under {name}" for name in self.changes)]
        return [Metric(name=name, label=name, unit="%", digits=2, better="higher", shown=True) for name in names]

    @torch.no_grad()
    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Scores:
        sums, seen = defaultdict[tuple[str, str], int](int), 0
        mean, std = (torch.tensor(of).view(1, -1, 1, 1) for of in (batches.spec.mean, batches.spec.std))
        draws = {name: generator(self.seed, "invariance", name) for name in self.changes}
        for batch in batches:
            seen += len(batch)
            images = batch.input_tensor
            shift, scale = mean.to(images), std.to(images)
            values = (images * scale + shift).clamp(0, 1)
            moved = {name: (one.change(values, draws[name]) - shift) / scale for name, one in self.changes.items()}
            for name, net in networks.items():
                logits = net(images).logits
                sums[name, "accuracy"] += count(logits.argmax(1) == batch.labels)
                for change, changed in moved.items():
                    sums[name, f"under {change}"] += count(agreement(logits, net(changed).logits))
        scores: Scores = defaultdict(dict)
        for (row, column), value in sums.items():
            scores[row][column] = value / seen
        return dict(scores)
