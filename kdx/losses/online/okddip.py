"""OKDDip: peers with targets by attention, and a leader that learns from their mean."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.online.peer_term import PeerTerm, taught_divergence

Mixed = Literal["logits", "probabilities"]


class PeerAttention(PeerTerm):
    """The peers learn from attention-weighted sums of each other, the student from the mean of all peers.

    The attention of a peer to another, or to itself, is the softmax of the product of two linear maps of their pooled
    features. Without `detach_peers`, as in the authors' code, gradients reach the networks through the targets.

    Args:
        temperature: T, a number or a schedule.
        width: Dimensions of the queries and keys.
        mixed: Summed quantity: 'logits' (the authors' code) or softened 'probabilities' (the paper's equation).
        detach_peers: Whether the peers' outputs get no gradient through a target; the attention learns in either case.

    Raises:
        ValueError: An unknown kind of sum.

    References:
        Chen, Mei, Wang, Feng, Chen, "Online Knowledge Distillation with Diverse Peers", 2020.
        https://arxiv.org/abs/1912.00350
    """

    names: ClassVar[tuple[str, ...]] = ("mutual", "leader")
    query: nn.Linear
    key: nn.Linear

    def __init__(self, temperature: Positive | Schedule, width: PositiveInt, mixed: Mixed, detach_peers: bool):
        super().__init__()
        if mixed not in ("logits", "probabilities"):
            raise ValueError(f"mixed must be 'logits' or 'probabilities', got {mixed!r}")
        self.temperature, self.width, self.detach_peers = temperature, width, detach_peers
        self.mixed: Mixed = mixed

    def build(self, members: Sequence[Shapes], shared: str | None, spec: DataSpec) -> None:
        if len(members) < 3:
            raise ValueError("OKDDip needs at least two peers beside the student, the leader: method.peers=[same,same]")
        widths = [m.feature("pooled", "peer")[0] for m in members[1:]]
        if len(set(widths)) > 1:
            raise ValueError(f"OKDDip compares the peers' pooled features, which have different widths: {widths}")
        self.query = nn.Linear(widths[0], self.width, bias=False)
        self.key = nn.Linear(widths[0], self.width, bias=False)

    def attention(self, peers: Sequence[Outputs]) -> Tensor:
        """Attention of each peer to each peer, [B, A, A]; rows have sum 1."""
        pooled = torch.stack([p.feature("pooled") for p in peers], 1)
        return (self.query(pooled) @ self.key(pooled).transpose(1, 2)).softmax(2)

    def forward(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        leader, *peers = members
        temperature = at(self.temperature, progress)
        logits = torch.stack([p.logits for p in peers], 1)
        known = logits.detach() if self.detach_peers else logits
        attention = self.attention(peers)
        if self.mixed == "logits":
            targets = attention @ known
        else:  # logits with these probabilities at T
            targets = (attention @ (known / temperature).softmax(2)).log() * temperature
        own = [taught_divergence(logits[:, a], targets[:, a], temperature) for a in range(len(peers))]
        led = taught_divergence(leader.logits, known.mean(1), temperature)
        return {"mutual": torch.stack(own).sum(0), "leader": led}
