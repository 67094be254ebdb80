"""Stages within a run: a term that takes part for a span of the schedule alone."""

import math

import torch
from torch import Tensor, nn

from kdx.core.ranges import NonNegative
from kdx.core.schedule import Progress
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.base.term import Term


class During(Term):
    """Another term, from schedule epoch `since` up to, not including, `until`; absent elsewhere.

    A weight of 0 would not do for methods in stages: parameters with a zero gradient still decay, and move
    on with their momentum. Here the term does not run outside its span, costs nothing there, and a
    parameter that only absent terms reach has no gradient at all, so the optimiser leaves it alone.

    Args:
        term: The term inside.
        since: First schedule epoch.
        until: Schedule epoch that ends the span; None for the end of the run.
    """

    tasks = None

    def __init__(self, term: Term, since: NonNegative, until: NonNegative | None):
        super().__init__()
        until = math.inf if until is None else until
        if until <= since:
            raise ValueError(f"a span must end after it begins: since {since}, until {until}")
        self.term, self.since, self.until = term, since, until
        self.needs_teacher = term.needs_teacher

    def student_roles(self) -> tuple[str, ...]:
        return self.term.student_roles()

    def teacher_roles(self) -> tuple[str, ...]:
        return self.term.teacher_roles()

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.term.attach(student, teacher)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.term.build(student, teacher, spec)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        if self.since <= progress.epoch < self.until:
            return self.term(student, teacher, batch, progress)
        return torch.zeros(len(batch), device=student.logits.device)
