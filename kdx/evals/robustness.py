"""Accuracy under adversarial attacks."""

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import nn
from torch.nn import functional as F

from kdx.core.metric import Metric
from kdx.evals.base import OfSplit, SplitEvaluator, differentiable, network
from kdx.metrics.accuracy import correct
from kdx.models.attack import PGD


class Robustness(SplitEvaluator):
    """Measures `robustness/{split}/{attack}`: top-1 on inputs that an attack changed to raise the cross-entropy.

    First-order white-box attacks give an upper bound on robust accuracy.

    Args:
        model: Role of the network that is attacked and measured. For roles other than the student, the role is a
            prefix of the metric: `teacher/robustness/test/pgd`.
        attacks: Attacks by the name of their metric.
        mean: Mean of each channel, used to normalise inputs.
        std: Standard deviation of each channel, used to normalise inputs.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.
    """

    reads_one_tensor = True
    described = (
        Metric(name="robustness/*/fgsm", label="top-1 under FGSM", unit="%", digits=2, better="higher"),
        Metric(name="robustness/*/pgd", label="top-1 under PGD", unit="%", digits=2, better="higher"),
        Metric(name="robustness/*/*", label="top-1 under attack", unit="%", digits=2, better="higher"),
    )

    def __init__(
        self,
        model: str,
        attacks: Mapping[str, PGD],
        mean: Sequence[float],
        std: Sequence[float],
        **own: Unpack[OfSplit],
    ):
        super().__init__(**own)
        self.model, self.attacks, self.mean, self.std = model, dict(attacks), mean, std

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        net = network(models, self.model)
        prefix = "" if self.model == "student" else f"{self.model}/"
        right = dict.fromkeys(self.attacks, 0)
        examples = 0
        with differentiable(net):
            for batch in self.batches():
                examples += len(batch)
                for name, attack in self.attacks.items():
                    moved = attack(
                        lambda x: net(x).logits,
                        lambda logits, labels=batch.labels: F.cross_entropy(logits, labels, reduction="none"),
                        batch.input_tensor,
                        self.mean,
                        self.std,
                    )
                    with torch.no_grad():
                        right[name] += int(correct(net(moved).logits, batch.labels).sum())
        return {f"{prefix}robustness/{self.split}/{name}": count / examples for name, count in right.items()}
