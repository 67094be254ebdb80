"""How much each member of an ensemble counts: for all samples alike, for each by itself, or by the dice."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.ranges import PositiveInt
from kdx.core.types import Batch
from kdx.losses.base.numerics import full_precision

Measure = Literal["cross_entropy", "entropy"]


class Weighting:
    """From the members' logits to weights [B, M], not normalised; a member's own weight multiplies its part."""

    reads_labels = False

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        """Weights of the members.

        Args:
            members: Logits [B, C] of each of the M members.
            own: The members' own weights [M], as the teacher's config has them.
            batch: What the logits are of.
        """
        raise NotImplementedError


class Constant(Weighting):
    """Each member's own weight (`teacher.members.NAME.weight`), 1 where nothing else is said."""

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        return own.expand(len(members[0]), -1)


class Confidence(Weighting):
    """`(1 - softmax_m(d_m)) / (M - 1)` for each sample, so that a member that does badly on it counts less.

    Args:
        measure: d is the member's cross-entropy with the label (CA-MKD), or the entropy of its prediction, which
            needs no label.

    References:
        Zhang, Chen, Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation", 2022.
        https://arxiv.org/abs/2201.00007
        Kwon, Na, Lee, Kim, "Adaptive Knowledge Distillation Based on Entropy", 2020.
        https://doi.org/10.1109/ICASSP40776.2020.9054698
    """

    def __init__(self, measure: Measure):
        if measure not in ("cross_entropy", "entropy"):
            raise ValueError(f"measure must be 'cross_entropy' or 'entropy', got {measure!r}")
        self.measure: Measure = measure
        self.reads_labels = measure == "cross_entropy"

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        if len(members) == 1:
            return own.expand(len(members[0]), -1)
        doubt = torch.stack([self._doubt(v.detach(), batch) for v in members], 1)
        return (1 - doubt.softmax(1)) / (len(members) - 1) * own

    def _doubt(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.measure == "entropy":
            return entropy(logits)
        labels = batch.labels if batch.soft_labels is None else batch.soft_labels
        return F.cross_entropy(logits, labels, reduction="none")


class OneOfThem(Weighting):
    """One member for the whole batch, drawn with probabilities that follow their own weights.

    The draw comes from the global stream of the CPU.

    References:
        Fukuda, Suzuki, Kurata, Thomas, Cui, Ramabhadran, "Efficient Knowledge Distillation from an Ensemble of
        Teachers", 2017. https://doi.org/10.21437/Interspeech.2017-614
    """

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        drawn = int(torch.multinomial(own.cpu().double(), 1))
        return F.one_hot(torch.tensor(drawn), len(members)).to(own).expand(len(members[0]), -1)


class Dropped(Weighting):
    """Some members, drawn for each batch, do not count; one always does.

    Args:
        count: How many are dropped, at most all but one.

    References:
        Son, Na, Choi, Hwang, "Densely Guided Knowledge Distillation Using Multiple Teacher Assistants", 2021.
        https://arxiv.org/abs/2009.08825
    """

    def __init__(self, count: PositiveInt):
        self.count = count

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        # drawn also where nothing is dropped, so that streams do not depend on how many teachers there are
        gone = torch.randperm(len(members))[: min(self.count, len(members) - 1)]
        kept = torch.ones(len(members)).index_fill(0, gone, 0.0)
        return (own * kept.to(own)).expand(len(members[0]), -1)


@full_precision
def entropy(logits: Tensor) -> Tensor:
    """Entropy of the predictions [B], in nats, of logits [B, C]."""
    log_probs = logits.log_softmax(1)
    return -(log_probs.exp() * log_probs).sum(1)
