"""Whether networks go by shape or by texture."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import nn

from kdx.core.metric import Metric
from kdx.core.ranges import Count
from kdx.core.seed import generator
from kdx.metrics.cues import conflicts, style_swapped
from kdx.metrics.fidelity import agreement
from kdx.studies.measures.base import Examples, Scores, count, pair


@dataclass(frozen=True, kw_only=True)
class CueConflicts:
    """Decisions on a set of cue conflicts: each example of the split with the texture of another class's example.

    The set is made from the split by exchanging amplitudes in Fourier space, see `kdx.metrics.cues.style_swapped`.

    Attributes:
        seed: Seed of the pairs.

    References:
        Geirhos et al., "ImageNet-trained CNNs are biased towards texture", 2019. https://arxiv.org/abs/1811.12231
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023.
        https://arxiv.org/abs/2205.16004
    """

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(name="shape bias", label="shape bias", unit="%", digits=2, shown=True),
        Metric(name="shape", label="shape", unit="%", digits=2, shown=True),
        Metric(name="texture", label="texture", unit="%", digits=2, shown=True),
        Metric(name="agreement", label="agreement", unit="%", digits=2, better="higher", shown=True),
    )
    notes: ClassVar[Sequence[str]] = (
        "examples with the phases of their own Fourier transform and the amplitudes of an example of another class; "
        "shape and texture are the shares of predictions for the one's and the other's class; shape bias is "
        "shape / (shape + texture)",
        "A / B: agreement is the share of these examples on which A and B predict the same class",
    )

    seed: Count

    @torch.no_grad()
    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Scores:
        read = [(batch.input_tensor, batch.labels) for batch in batches]
        images, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
        partners = conflicts(labels.cpu(), generator(self.seed, "cues")).to(labels.device)
        mean, std = (images.new_tensor(of).view(1, -1, 1, 1) for of in (batches.spec.mean, batches.spec.std))
        sums = defaultdict[tuple[str, str], int](int)
        for rows in torch.arange(len(labels), device=labels.device).split(len(read[0][1])):
            ours, theirs = ((images[part] * std + mean).clamp(0, 1) for part in (rows, partners[rows]))
            mixed = (style_swapped(ours, theirs) - mean) / std
            logits = {name: net(mixed).logits for name, net in networks.items()}
            for name, of in logits.items():
                guess = of.argmax(1)
                sums[name, "shape"] += count(guess == labels[rows])
                sums[name, "texture"] += count(guess == labels[partners[rows]])
            for one, other in permutations(networks, 2):
                sums[pair(one, other), "agreement"] += count(agreement(logits[one], logits[other]))
        scores: Scores = defaultdict(dict)
        for name in networks:
            shape, either = sums[name, "shape"], sums[name, "shape"] + sums[name, "texture"]
            scores[name] = {"shape bias": shape / either} if either else {}
        for (row, column), value in sums.items():
            scores[row][column] = value / len(labels)
        return dict(scores)
