"""Noise of the gradients of student and teacher, and the distance of their combination to distillation's gradient."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kdx.core.batch import Batch
from kdx.core.ranges import NonNegative, Positive, PositiveInt, Probability
from kdx.core.tree import take
from kdx.evals.base import OfSplit, SplitEvaluator, network
from kdx.metrics.gradients import DESCRIBED, noise
from kdx.models.counterpart import counterpart

Weights = dict[str, Tensor]


class GradientNoise(SplitEvaluator):
    """Measures `gradients/{split}/*`: the noise facts of `kdx.metrics.gradients.noise`, and `cosine`.

    On each minibatch, g is the gradient of the cross-entropy at the student's weights, and h the one at the teacher's
    weights, of the teacher's own loss. The cosine, a mean over minibatches, compares g - weight * h with the gradient
    of distillation at temperature 1, `(1 - weight) CE + weight KL`: it is 1 for linear models. Networks are in
    evaluation mode, and of one architecture.

    Args:
        batch_size: Examples of a minibatch; the last, shorter one is left out.
        limit: Maximum number of minibatches.
        weight: Weight of the teacher's gradient.
        l2: Coefficient of the L2 penalty in both losses; the cosine leaves it out.
        rate: Learning rate, for `weight_bound`; with `curvature`, the constant of strong convexity (l2, if that is all
            that is known). None leaves the bound out.
        curvature: See `rate`.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.

    References:
        Safaryan, Peste, Alistarh, "Knowledge Distillation Performs Partial Variance Reduction", 2023.
        https://arxiv.org/abs/2305.17581
    """

    needs_teacher = True
    described = tuple(replace(metric, name=f"gradients/*/{metric.name}") for metric in DESCRIBED)

    def __init__(
        self,
        batch_size: PositiveInt,
        limit: PositiveInt,
        weight: Probability,
        l2: NonNegative,
        rate: Positive | None,
        curvature: Positive | None,
        **own: Unpack[OfSplit],
    ):
        super().__init__(**own)
        if (rate is None) != (curvature is None):
            raise ValueError("rate and curvature belong together: set both, or neither")
        self.batch_size, self.limit, self.weight, self.l2 = batch_size, limit, weight, l2
        self.product = None if rate is None or curvature is None else rate * curvature

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student, teacher = network(models, "student"), network(models, "teacher")
        x = {name: p.detach() for name, p in student.named_parameters()}
        t = counterpart(student, teacher)
        mine, theirs, cosines = [], [], []
        for part in self._minibatches():
            soft = teacher(part.inputs).logits.softmax(1)
            g, h = (_gradient(student, of, part, None) for of in (x, t))
            mixed = _gradient(student, x, part, (1 - self.weight) * _one_hot(part, soft) + self.weight * soft)
            cosines.append(F.cosine_similarity((g - self.weight * h).double(), mixed.double(), dim=0))
            mine.append(g + self.l2 * _flat(x))
            theirs.append(h + self.l2 * _flat(t))
        if not mine:
            return {}
        found = noise(torch.stack(mine), torch.stack(theirs), self.weight, self.product)
        found["cosine"] = float(torch.stack(cosines).mean())
        return {f"gradients/{self.split}/{name}": value for name, value in found.items()}

    def _minibatches(self) -> Iterator[Batch]:
        given = 0
        for batch in self.batches():
            for rows in torch.arange(len(batch)).split(self.batch_size):
                if len(rows) == self.batch_size and given < self.limit:
                    given += 1
                    at = rows.to(batch.device)
                    yield Batch.of_classes(take(batch.inputs, at), batch.labels[at], batch.index[at])


def _gradient(net: nn.Module, weights: Weights, batch: Batch, target: Tensor | None) -> Tensor:
    """The flat gradient of the mean cross-entropy with the labels, or with a target distribution [B, C]."""
    with torch.enable_grad():
        leaves = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
        logits = functional_call(net, leaves, (batch.inputs,)).logits
        loss = F.cross_entropy(logits, batch.labels if target is None else target)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.values(), found, strict=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in pairs])


def _flat(weights: Weights) -> Tensor:
    return torch.cat([w.flatten() for w in weights.values()])


def _one_hot(batch: Batch, like: Tensor) -> Tensor:
    return F.one_hot(batch.labels, like.shape[1]).to(like)
