"""Deviation of a fast form of a network from the network."""

import torch
from torch import Tensor

from kdx.core.functional import divergence
from kdx.metrics.fidelity import agreement

TEMPERATURES = (1, 4)  # of evaluation, and of most distillation


class Deviation:
    """Accumulates, in float64, differences between a network's logits and those of a faster form of it.

    `kl_t1` and `kl_t4` are the mean KL(exact || fast) in nats at these temperatures, `agreement` is the share of
    examples with the same prediction, and `max_logit_difference` is the largest difference of a logit.
    """

    def __init__(self) -> None:
        self.count = 0
        self.same = 0
        self.kl = dict.fromkeys(TEMPERATURES, 0.0)
        self.largest = 0.0

    @torch.no_grad()
    def update(self, exact: Tensor, fast: Tensor) -> None:
        """Add a batch of logits, both [B, C]."""
        p, q = exact.double(), fast.double()
        self.count += len(p)
        self.same += int(agreement(p, q).sum())
        self.largest = max(self.largest, float((p - q).abs().max()))
        for t in TEMPERATURES:
            log_p, log_q = (p / t).log_softmax(1), (q / t).log_softmax(1)
            self.kl[t] += float(divergence(log_p, log_q).sum())

    def compute(self) -> dict[str, float]:
        """The measurements over all examples so far, of which there must be at least one."""
        kl = {f"kl_t{t}": total / self.count for t, total in self.kl.items()}
        return {**kl, "agreement": self.same / self.count, "max_logit_difference": self.largest}
