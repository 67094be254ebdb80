"""Gradients as a user writes them in a module of their own."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Step
from kdx.core.schedule import Progress
from kdx.engine.optim.gradient import Backward, Gradient


class ControlVariate(Gradient):
    """SVRG: g(w) - g(s) on the batch + the mean of g(s) over the batches before, for a snapshot s of the weights.

    Periods alternate: the first gathers the mean at a snapshot taken at its start, the second subtracts.

    Args:
        period: Steps of a period; an epoch's, for the mean over the training set.
    """

    def __init__(self, period: int):
        self.period, self.seen, self.corrected = period, 0, 0
        self.snapshot: list[Tensor] = []
        self.sums: list[Tensor] = []

    def __call__(self, backward: Backward, batch: Batch, progress: Progress) -> Step:
        gathers = progress.step // self.period % 2 == 0
        if gathers and progress.step % self.period == 0:
            self.snapshot = [p.detach().clone() for p in backward.parameters]
            self.sums, self.seen = [torch.zeros_like(p) for p in self.snapshot], 0
        step = backward(batch, progress)
        with backward.at(self.snapshot):
            _, second = backward.gradient(batch, progress)
        if gathers:
            self.sums = [s + batch.total * g for s, g in zip(self.sums, second, strict=True)]
            self.seen += batch.total
        else:
            for p, s, g in zip(backward.parameters, self.sums, second, strict=True):
                assert p.grad is not None
                p.grad += s / self.seen - g
            self.corrected += 1
        return step

    def state_dict(self) -> dict[str, Any]:
        return {"snapshot": self.snapshot, "sums": self.sums, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.snapshot, self.sums, self.seen = state["snapshot"], state["sums"], state["seen"]


class Gate(Gradient):
    """Adds the teacher's gradient only as far as it does not oppose that of the labels (gradient surgery).

    References:
        Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient Surgery for Multi-Task Learning", 2020.
        https://arxiv.org/abs/2001.06782
    """

    def __init__(self, labels: str, teacher: str):
        self.labels, self.teacher = labels, teacher

    def __call__(self, backward: Backward, batch: Batch, progress: Progress) -> Step:
        step, gradients = backward.term_gradients(batch, progress)
        ours, theirs = gradients[self.labels], gradients[self.teacher]
        inner = torch.stack([(a * b).sum() for a, b in zip(ours, theirs, strict=True)]).sum()
        norm = torch.stack([a.square().sum() for a in ours]).sum()
        opposing = (inner / norm).clamp(max=0)
        for p, a, b in zip(backward.parameters, ours, theirs, strict=True):
            p.grad = a + b - opposing * a
        return replace(step, report={**step.report, "opposed": (inner < 0).float()})
