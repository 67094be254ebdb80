"""Weights of an ensemble's members: the same for all samples, per sample, or random."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.ranges import PositiveInt
from kdx.losses.base.numerics import full_precision

Measure = Literal["cross_entropy", "entropy"]


class Weighting:
    """Maps the members' logits to weights [B, M], not normalised; a member's own weight multiplies its part."""

    reads_labels = False

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        """Weights of the members, [B, M].

        Args:
            members: Logits [B, C] of each of the M members.
            own: The members' own weights [M], from the teacher's config.
            batch: The batch of the logits.
        """
        raise NotImplementedError


class Constant(Weighting):
    """Each member's own weight (`teacher.members.NAME.weight`), 1 by default."""

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        return own.expand(len(members[0]), -1)


class Confidence(Weighting):
    """`(1 - softmax_m(d_m)) / (M - 1)` for each sample, so that a member with a high d counts less.

    Args:
        measure: d is the member's cross-entropy with the label (CA-MKD), or the entropy of its prediction, which
            needs no label.

    References:
        Zhang, Chen, Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation", 2022.
        https://arxiv.org/abs/2201.00007
        Kwon, Na, Lee, Kim, "Adaptive Knowledge Distillation Based on Entropy", 2020.
        https://doi.org/10.1109/ICASSP40776.2020.9054698

    Example:
        The members' weights of a sample sum to 1.

        >>> weighting, batch = Confidence("entropy"), Batch(torch.zeros(3, 1), torch.zeros(3).long(), torch.arange(3))
        >>> weights = weighting([torch.randn(3, 5), torch.randn(3, 5)], torch.ones(2), batch)
        >>> torch.allclose(weights.sum(1), torch.ones(3))
        True
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


class EntropyShare(Weighting):
    """`1 - h_m / sum_k h_k` for each sample, with h the entropy of a member's prediction; they sum to M - 1.

    EB-KD as the code of CA-MKD has it. Where every member is certain, the weights are `1 - 1 / M`.

    References:
        Kwon, Na, Lee, Kim, "Adaptive Knowledge Distillation Based on Entropy", 2020.
        https://doi.org/10.1109/ICASSP40776.2020.9054698

    Example:
        >>> batch = Batch(torch.zeros(3, 1), torch.zeros(3).long(), torch.arange(3))
        >>> weights = EntropyShare()([torch.randn(3, 5), torch.randn(3, 5)], torch.ones(2), batch)
        >>> torch.allclose(weights.sum(1), torch.ones(3))
        True
    """

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        if len(members) == 1:
            return own.expand(len(members[0]), -1)
        entropies = torch.stack([entropy(v.detach()) for v in members], 1)
        total = entropies.sum(1, keepdim=True)
        shares = torch.where(total > 1e-12, entropies / total.clamp(min=1e-12), 1 / len(members))
        return (1 - shares) * own


class RandomMember(Weighting):
    """One member for the whole batch, drawn with probabilities in proportion to the members' own weights.

    The draw comes from the CPU's global stream.

    References:
        Fukuda, Suzuki, Kurata, Thomas, Cui, Ramabhadran, "Efficient Knowledge Distillation from an Ensemble of
        Teachers", 2017. https://doi.org/10.21437/Interspeech.2017-614
    """

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        drawn = int(torch.multinomial(own.cpu().double(), 1))
        return F.one_hot(torch.tensor(drawn), len(members)).to(own).expand(len(members[0]), -1)


class DropMembers(Weighting):
    """Drops some members, drawn for each batch; at least one remains.

    Args:
        count: Number of dropped members, at most all but one.

    References:
        Son, Na, Choi, Hwang, "Densely Guided Knowledge Distillation Using Multiple Teacher Assistants", 2021.
        https://arxiv.org/abs/2009.08825
    """

    def __init__(self, count: PositiveInt):
        self.count = count

    def __call__(self, members: Sequence[Tensor], own: Tensor, batch: Batch) -> Tensor:
        # drawn for any number of members, so that the stream does not depend on it
        gone = torch.randperm(len(members))[: min(self.count, len(members) - 1)]
        kept = torch.ones(len(members)).index_fill(0, gone, 0.0)
        return (own * kept.to(own)).expand(len(members[0]), -1)


@full_precision
def entropy(logits: Tensor) -> Tensor:
    """Entropy of the predictions, in nats.

    Args:
        logits: [B, C].

    Returns:
        [B].

    Example:
        >>> torch.allclose(entropy(torch.zeros(1, 10)), torch.tensor([10.0]).log())  # uniform: log C
        True
    """
    log_probs = logits.log_softmax(1)
    return -(log_probs.exp() * log_probs).sum(1)
