"""Deep mutual learning: every network learns from every other one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.losses.online.peer_term import PeerTerm, taught_divergence


def mutual_divergence(
    logits: Sequence[Tensor], learner: int, temperature: float, average: bool, detach_peers: bool
) -> Tensor:
    """`T^2 sum_j KL(p_j || p_i)` of one network i from all the others j.

    Args:
        logits: [B, C] of each network.
        learner: i.
        temperature: T, above 0.
        average: Whether the sum is divided by the number of others.
        detach_peers: Whether the others get no gradient.

    Returns:
        [B], in nats.

    References:
        Zhang, Xiang, Hospedales, Lu, "Deep Mutual Learning", 2018. https://arxiv.org/abs/1706.00384

    Example:
        >>> z, v = torch.randn(2, 5), torch.randn(2, 5)
        >>> pair = mutual_divergence([z, v], 0, 4.0, average=True, detach_peers=True)
        >>> torch.equal(pair, taught_divergence(z, v, 4.0))
        True
    """
    others = [peer.detach() if detach_peers else peer for j, peer in enumerate(logits) if j != learner]
    total = torch.stack([taught_divergence(logits[learner], peer, temperature) for peer in others]).sum(0)
    return total / len(others) if average else total


class MutualDivergence(PeerTerm):
    """Divergence of each member from every other one.

    Args:
        temperature: T, a number or a schedule.
        average: Whether a member's sum over the others is divided by their number.
        detach_peers: Whether the others get no gradient from a member's loss.
    """

    def __init__(self, temperature: Positive | Schedule, average: bool, detach_peers: bool):
        super().__init__()
        self.temperature, self.average, self.detach_peers = temperature, average, detach_peers

    def forward(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        logits, temperature = [m.logits for m in members], at(self.temperature, progress)
        own = [mutual_divergence(logits, i, temperature, self.average, self.detach_peers) for i in learners]
        return {"mutual": torch.stack(own).sum(0)}
