"""KDCL: several networks learn from one target that combines their logits."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PartialFraction, Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels
from kdx.losses.base.numerics import full_precision
from kdx.losses.logits.kd import kl_divergence
from kdx.losses.online.peer_term import PeerTerm

Rule = Literal["naive", "linear", "min_logit", "general"]
RULES = ("naive", "linear", "min_logit", "general")
HALVINGS = 20  # steps of the bisection
SWEEPS = 16  # over all pairs of more than two networks


@full_precision
def naive_target(logits: Tensor, targets: Tensor) -> Tensor:
    """For each example, the logits of the network with the lowest cross-entropy.

    Args:
        logits: Logits of K networks, [K, B, C].
        targets: Class probabilities [B, C].

    Returns:
        [B, C].

    Example:
        >>> right, wrong = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 5.0]])
        >>> naive_target(torch.stack([wrong, right]), torch.tensor([[1.0, 0.0]]))
        tensor([[5., 0.]])
    """
    best = -(logits.log_softmax(2) * targets).sum(2)
    return logits[best.argmin(0), torch.arange(logits.shape[1], device=logits.device)]


@full_precision
def min_logit_target(logits: Tensor, labels: Tensor) -> Tensor:
    """For each class, the least of the networks' logits after subtracting each network's logit of the label.

    Args:
        logits: Logits of K networks, [K, B, C].
        labels: Class indices [B].

    Returns:
        [B, C]: 0 at the label.

    Example:
        >>> min_logit_target(torch.tensor([[[3.0, 1.0]], [[5.0, 0.0]]]), torch.tensor([0]))
        tensor([[ 0., -5.]])
    """
    own = logits.gather(2, labels.expand(len(logits), -1)[:, :, None])
    return (logits - own).amin(0)


@full_precision
def best_mixture(logits: Tensor, targets: Tensor) -> Tensor:
    """Weights of the convex combination of the logits with the least cross-entropy, for each example.

    The cross-entropy is convex in the weights. For each pair of networks, bisection finds the share at which the
    derivative changes sign. With two networks this is the minimum; with more, coordinate descent repeats over all
    pairs.

    Args:
        logits: Logits of K networks, [K, B, C].
        targets: Class probabilities [B, C].

    Returns:
        [K, B], non-negative, with sum 1 over K.

    Example:
        >>> right, wrong = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 5.0]])
        >>> best_mixture(torch.stack([wrong, right]), torch.tensor([[1.0, 0.0]])).round(decimals=3)
        tensor([[0.],
                [1.]])
    """
    networks = len(logits)
    weights = torch.full(logits.shape[:2], 1 / networks, dtype=logits.dtype, device=logits.device)
    for _ in range(1 if networks == 2 else SWEEPS):
        for i, j in combinations(range(networks), 2):
            both, apart = weights[i] + weights[j], logits[i] - logits[j]
            # the mixture with the pair's weight on j alone
            start = (weights[:, :, None] * logits).sum(0) - weights[i, :, None] * apart
            low = torch.zeros_like(both)
            high = both
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                probs = (start + middle[:, None] * apart).softmax(1)
                rising = ((probs - targets) * apart).sum(1) > 0
                low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
            weights[i], weights[j] = (low + high) / 2, both - (low + high) / 2
    return weights


@full_precision
def error_covariance(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the examples of the inner products of the networks' errors, probabilities minus targets.

    Args:
        logits: Logits of K networks, [K, B, C].
        targets: Class probabilities [B, C].

    Returns:
        [K, K].

    Example:
        >>> logits = torch.tensor([[[100.0, 0.0]], [[0.0, 100.0]]])  # the first network is right, the second wrong
        >>> error_covariance(logits, torch.tensor([[1.0, 0.0]])).round(decimals=6)
        tensor([[0., 0.],
                [0., 2.]])
    """
    errors = (logits.softmax(2) - targets).flatten(1)
    return errors @ errors.T / len(targets)


def least_error_weights(covariance: Tensor) -> Tensor:
    """Weights with sum 1 of the combination with the least expected error: `C^-1 1 / (1' C^-1 1)`.

    Some may be negative. Networks with equal errors, whose covariance has no inverse, share their weight.

    Args:
        covariance: C, [K, K].

    Returns:
        [K].

    References:
        Bates, Granger, "The Combination of Forecasts", 1969. https://doi.org/10.1057/jors.1969.103

    Example:
        Independent errors are weighted by the inverse of their variance.

        >>> weights = least_error_weights(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        >>> torch.allclose(weights, torch.tensor([0.75, 0.25]), atol=1e-5)
        True
    """
    count = len(covariance)
    ridge = 1e-6 * covariance.trace() / count + torch.finfo(covariance.dtype).tiny
    ones = torch.ones(count, dtype=covariance.dtype, device=covariance.device)
    solved = torch.linalg.solve(covariance + ridge * torch.diag(ones), ones)
    return solved / solved.sum()


class Consensus(PeerTerm):
    """Divergence of each member from one detached target for all.

    Args:
        rule: 'naive' (the best network of each example), 'linear' (the convex combination with the least cross-entropy
            of each example), 'min_logit' (the least logit of each class, relative to the label's) or 'general' (one
            combination for all examples, with the least expected error).
        temperature: T, a number or a schedule.
        momentum: Share of the old value that each step keeps in the running covariance of the members' errors, which
            'general' reads.

    Raises:
        ValueError: An unknown rule.

    References:
        Guo, Wang, Wu, Yu, Liang, Hu, Luo, "Online Knowledge Distillation via Collaborative Learning", 2020.
        https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html
    """

    covariance: Tensor
    seen: Tensor

    def __init__(self, rule: Rule, temperature: Positive | Schedule, momentum: PartialFraction):
        super().__init__()
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        self.rule: Rule = rule
        self.divisible = rule != "general"  # its covariance is a state of earlier batches
        self.temperature, self.momentum = temperature, momentum

    def build(self, members: Sequence[Shapes], shared: str | None, spec: DataSpec) -> None:
        require_labels(spec, "KDCL")
        if self.rule == "general":
            self.register_buffer("covariance", torch.zeros(len(members), len(members)))
            self.register_buffer("seen", torch.zeros(()))  # corrects the covariance for its start at 0

    def forward(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        logits = torch.stack([m.logits.detach() for m in members])
        # in turns, the batch is counted once, in the student's turn
        target = self.target(logits, batch, count=self.training and 0 in learners)
        temperature = at(self.temperature, progress)
        own = [kl_divergence(members[i].logits, target, temperature, "batchmean") for i in learners]
        return {"mutual": torch.stack(own).sum(0)}

    def target(self, logits: Tensor, batch: Batch, count: bool) -> Tensor:
        """The common target [B, C] of logits [K, B, C].

        Args:
            logits: Logits of the members.
            batch: The batch with their labels.
            count: Whether to update the running covariance with this batch.
        """
        if self.rule == "min_logit":
            return min_logit_target(logits, batch.labels)
        labels = F.one_hot(batch.labels, logits.shape[2]) if batch.soft_labels is None else batch.soft_labels
        labels = labels.to(logits.dtype)
        if self.rule == "naive":
            return naive_target(logits, labels)
        if self.rule == "linear":
            return (best_mixture(logits, labels)[:, :, None] * logits).sum(0)
        if count:
            self.covariance.lerp_(error_covariance(logits, labels).to(self.covariance.dtype), 1 - self.momentum)
            self.seen.lerp_(torch.ones_like(self.seen), 1 - self.momentum)
        weights = least_error_weights(self.covariance / self.seen)
        return (weights.to(logits.dtype)[:, None, None] * logits).sum(0)
