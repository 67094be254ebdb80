"""Whether images that fool the teacher fool its students."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.metric import Metric
from kdx.models.attack import PGD
from kdx.studies.measures.base import Examples, Scores, count, must_be_there


@dataclass(frozen=True, kw_only=True)
class AdversarialTransfer:
    """Share of each network's predictions that images change which were crafted on a source and changed its prediction.

    Attributes:
        attack: Raises the cross-entropy of the label.
        sources: Networks that images are crafted on: the teacher, and a foreign network as the control.

    References:
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023.
        https://arxiv.org/abs/2205.16004
    """

    notes: ClassVar[Sequence[str]] = (
        "fooled by S: of the attacked images that change the prediction of S, the share that also changes the row's "
        "prediction; in the row of S itself, the share of all images that changes it",
    )

    attack: PGD
    sources: Sequence[str]

    @property
    def metrics(self) -> Sequence[Metric]:
        by = [Metric(name=f"by {s}", label=f"fooled by {s}", unit="%", digits=2, shown=True) for s in self.sources]
        return [Metric(name="accuracy", label="accuracy", unit="%", digits=2, better="higher", shown=True), *by]

    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Scores:
        for source in self.sources:
            must_be_there(source, networks, "sources")
        hits, tried = defaultdict[tuple[str, str], int](int), defaultdict[tuple[str, str], int](int)
        for batch in batches:
            clean = {name: _classes(net, batch.input_tensor) for name, net in networks.items()}
            for name, found in clean.items():
                tried[name, "accuracy"] += len(batch)
                hits[name, "accuracy"] += count(found == batch.labels)
            for source in self.sources:
                net = networks[source]
                moved = self.attack(
                    lambda x, net=net: net(x).logits,
                    lambda logits, labels=batch.labels: F.cross_entropy(logits, labels, reduction="none"),
                    batch.input_tensor,
                    batches.spec.mean,
                    batches.spec.std,
                )
                changed = {name: _classes(net, moved) != clean[name] for name, net in networks.items()}
                fooled = changed[source]
                for name in networks:
                    of = torch.ones_like(fooled) if name == source else fooled
                    tried[name, f"by {source}"] += count(of)
                    hits[name, f"by {source}"] += count(of & changed[name])
        scores: Scores = defaultdict(dict)
        for (row, column), number in tried.items():
            if number:
                scores[row][column] = hits[row, column] / number
        return dict(scores)


@torch.no_grad()
def _classes(net: nn.Module, inputs: Tensor) -> Tensor:
    return net(inputs).logits.argmax(1)
