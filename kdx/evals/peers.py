"""Accuracy and calibration of the networks that learn beside the student, and of all of them together."""

from collections.abc import Mapping

import torch
from torch import nn

from kdx.core.functional import mean_log_probs
from kdx.evals.base import SplitEvaluator
from kdx.evals.classification import BINS
from kdx.metrics.accuracy import TopK
from kdx.metrics.calibration import Calibration

TOGETHER = "ensemble"


class Peers(SplitEvaluator):
    """Measures `{role}/{split}/top1` and the rest of `Classification` for each further network, and for all together.

    The roles are those of the method: `peer1/test/top1`, `exit2/test/top1`. `ensemble` is what the method
    itself makes of its networks, or else the mean of their probabilities, the student's among them.

    Args:
        loaders, device, split, every: As in `SplitEvaluator`.
    """

    needs_peers = True

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        measures: dict[str, tuple[TopK, Calibration]] = {}
        for batch in self.batches():
            logits = {role: net(batch.inputs).logits.float() for role, net in models.items() if role != "teacher"}
            if TOGETHER not in logits:
                log_probs = torch.stack([own.log_softmax(1) for own in logits.values()])
                shares = log_probs.new_full((len(log_probs),), 1 / len(log_probs))
                logits[TOGETHER] = mean_log_probs(log_probs, shares)
            for role, own in logits.items():
                if role not in measures:
                    measures[role] = TopK(ks=(1, 5) if own.shape[1] >= 5 else (1,)), Calibration(bins=BINS)
                for measure in measures[role]:
                    measure.update(own, batch.labels)
        return {
            f"{role}/{self.split}/{name}": value
            for role, parts in measures.items()
            if role != "student"
            for part in parts
            for name, value in part.compute().items()
        }
