"""ONE: branches of one trunk learn from their gated ensemble."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.adapters import Norm
from kdx.losses.logits.cross_entropy import cross_entropy, over_labelled
from kdx.losses.logits.kd import kl_divergence
from kdx.losses.online.peer_term import PeerTerm


class GatedEnsemble(PeerTerm):
    """Divergence of each branch from a gated ensemble, and the ensemble's cross-entropy.

    The gate gives each example a weight for each branch: `softmax(relu(norm(linear(mean of the trunk's map))))`. It
    learns from the labels through the ensemble's cross-entropy, the term "ensemble". The branches' target is detached.

    Args:
        temperature: T, a number or a schedule.

    References:
        Lan, Zhu, Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", 2018.
        https://arxiv.org/abs/1806.04606
    """

    names: ClassVar[tuple[str, ...]] = ("mutual", "ensemble")
    combines = True
    gate: nn.Linear
    norm: Norm

    def __init__(self, temperature: Positive | Schedule):
        super().__init__()
        self.temperature = temperature

    def build(self, members: Sequence[Shapes], shared: str | None, spec: DataSpec) -> None:
        if shared is None:
            raise ValueError("the gate of ONE reads what the networks share; choose method.shared=all_but_last")
        self.shared = shared
        self.gate = nn.Linear(members[0].feature(shared, "student")[0], len(members))
        self.norm = Norm(len(members))

    def weights(self, members: Sequence[Outputs]) -> Tensor:
        """Weight of each branch for each example, [B, K]."""
        trunk = members[0].feature(self.shared)
        pooled = trunk.flatten(2).mean(2) if trunk.dim() > 2 else trunk
        return self.norm(self.gate(pooled)[:, :, None, None]).flatten(1).relu().softmax(1)

    def ensemble(self, members: Sequence[Outputs]) -> Tensor:
        logits = torch.stack([m.logits for m in members], 1)
        return (self.weights(members)[:, :, None] * logits).sum(1)

    def forward(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        together, temperature = self.ensemble(members), at(self.temperature, progress)
        own = [kl_divergence(members[i].logits, together, temperature, "batchmean") for i in learners]
        labels = batch.labels if batch.soft_labels is None else batch.soft_labels
        taught = over_labelled(cross_entropy(together, labels, 0.0), batch.labels)
        return {"mutual": torch.stack(own).sum(0), "ensemble": taught}
