"""CL-ILR: each head learns from the mean of the others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.losses.online.peer_term import PeerTerm, taught_divergence


class MeanOfOthers(PeerTerm):
    """Divergence of each member from the mean of the others' logits.

    Args:
        temperature: T, a number or a schedule.
        detach_peers: Whether the others get no gradient from a member's loss.

    References:
        Song, Chai, "Collaborative Learning for Deep Neural Networks", 2018. https://arxiv.org/abs/1805.11761
    """

    def __init__(self, temperature: Positive | Schedule, detach_peers: bool):
        super().__init__()
        self.temperature, self.detach_peers = temperature, detach_peers

    def forward(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        logits = torch.stack([m.logits for m in members])
        known = logits.detach() if self.detach_peers else logits
        others = (known.sum(0) - known) / (len(members) - 1)
        temperature = at(self.temperature, progress)
        own = [taught_divergence(logits[i], others[i], temperature) for i in learners]
        return {"mutual": torch.stack(own).sum(0)}
