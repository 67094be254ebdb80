"""Gradients that subtract a teacher's gradient on the same batch, as distillation of a linear model does."""

from typing import Any

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Step
from kdx.core.ranges import NonNegative, PositiveInt
from kdx.core.schedule import Progress, Weight, at
from kdx.engine.optim.gradient import Backward, Gradient
from kdx.models.counterpart import counterpart


class TeacherControl(Gradient):
    """`g(x) - w g(t)`, or `g(x) - w (g(t) - mean of g(t))`, with the method's gradient g on a batch.

    The gradient at the teacher's weights t is a control variate for the gradient at the student's weights x. Let the
    method be learning from labels (`method=alone`). For a linear model the first form is the gradient of distillation
    at temperature 1 with weights 1 - w and w, exactly. It is biased by the teacher's mean gradient; the second form is
    not. The mean over the training set is gathered during a whole epoch, in which the steps are plain; an epoch must
    show each example once.

    With `refresh`, the student's weights of some epochs ago stand for the teacher's, as in SVRG.

    Args:
        weight: w, a number or a schedule.
        unbiased: Whether to add the mean.
        teacher_decay: L2 penalty in the teacher's gradient: adds this times t. Equal to `optimizer.weight_decay` of SGD
            where the penalty is part of the loss.
        refresh: Epochs after which t becomes a copy of the student's weights, beginning with the first; None keeps the
            teacher's weights.

    Raises:
        UserError: The method has no teacher, or one of another architecture, or trains more than the student.

    References:
        Safaryan, Peste, Alistarh, "Knowledge Distillation Performs Partial Variance Reduction", 2023,
        https://arxiv.org/abs/2305.17581; Johnson, Zhang, "Accelerating Stochastic Gradient Descent using Predictive
        Variance Reduction", 2013.
    """

    def __init__(self, weight: Weight, unbiased: bool, teacher_decay: NonNegative, refresh: PositiveInt | None):
        self.weight, self.unbiased, self.teacher_decay, self.refresh = weight, unbiased, teacher_decay, refresh
        self.anchor: list[Tensor] = []
        self.mean: list[Tensor] = []  # of the gradient at the anchor; empty while it is gathered
        self.sums: list[Tensor] = []
        self.count = 0
        self.passes = -1  # whole epochs since the start; -1 before the first step
        self.seen = torch.zeros(0, dtype=torch.int64)  # examples of the current epoch

    def __call__(self, backward: Backward, batch: Batch, progress: Progress) -> Step:
        new_epoch = self._follow(batch)
        if not self.anchor or (self.refresh is not None and new_epoch and self.passes % self.refresh == 0):
            self.anchor = self._copy(backward)
            self.mean, self.sums, self.count = [], [torch.zeros_like(a) for a in self.anchor], 0
        elif self.unbiased and new_epoch and not self.mean:
            self.mean = [s / self.count for s in self.sums]
        step = backward(batch, progress)
        weight = at(self.weight, progress)
        if weight == 0 and (not self.unbiased or self.mean):
            return step
        with backward.at(self.anchor):
            _, controls = backward.gradient(batch, progress)
        if self.teacher_decay:
            controls = [c + self.teacher_decay * a for c, a in zip(controls, self.anchor, strict=True)]
        if self.unbiased and not self.mean:
            self.sums = [s.to(c.device) + batch.total * c for s, c in zip(self.sums, controls, strict=True)]
            self.count += batch.total
            return step
        means = self.mean or [torch.zeros_like(c) for c in controls]
        for p, control, mean in zip(backward.parameters, controls, means, strict=True):
            p.grad = (torch.zeros_like(p) if p.grad is None else p.grad) - weight * (control - mean.to(p.device))
        return step

    def _follow(self, batch: Batch) -> bool:
        """Whether the batch begins an epoch: the first one, or one with an example that was seen since the last."""
        index = batch.index.cpu()
        begins = self.passes < 0 or bool(torch.isin(index, self.seen).any())
        if begins:
            self.passes, self.seen = self.passes + 1, index
        else:
            self.seen = torch.cat([self.seen, index])
        return begins

    def _copy(self, backward: Backward) -> list[Tensor]:
        """A copy of the weights t, in the order of the parameters."""
        if self.refresh is not None:
            return [p.detach().clone() for p in backward.parameters]
        method = backward.method
        nets = method.models()
        if "teacher" not in nets:
            raise UserError(
                f"update.gradient=TeacherControl needs a teacher, and method={type(method).__name__} has none; use "
                "method=alone, or refresh the student's own weights"
            )
        found = counterpart(method.student, nets["teacher"])
        own = {name: p for name, p in method.student.named_parameters() if p.requires_grad}
        if [id(p) for p in own.values()] != [id(p) for p in backward.parameters]:
            raise UserError("update.gradient=TeacherControl: the method trains more than the student")
        return [found[name].to(p.device).clone() for name, p in own.items()]

    def state_dict(self) -> dict[str, Any]:
        return {
            "anchor": self.anchor,
            "mean": self.mean,
            "sums": self.sums,
            "count": self.count,
            "passes": self.passes,
            "seen": self.seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
