"""A term that is active for a span of the schedule."""

import math

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.ranges import NonNegative
from kdx.core.schedule import Progress
from kdx.losses.base.term import Term
from kdx.losses.base.wrapper import Wrapper


class Staged(Wrapper):
    """Another term, from schedule epoch `since` up to, not including, `until`; 0 outside the span.

    For methods that train in stages. A weight of 0 would not do: an optimiser still decays parameters with a zero
    gradient and moves them by their momentum. Outside its span the inner term does not run, so its parameters have no
    gradient and the optimiser skips them.

    Args:
        term: The inner term.
        since: First schedule epoch.
        until: Schedule epoch that ends the span; None for the end of the run.

    Raises:
        ValueError: The span ends before it begins.
    """

    tasks = None

    def __init__(self, term: Term, since: NonNegative, until: NonNegative | None):
        super().__init__(term)
        until = math.inf if until is None else until
        if until <= since:
            raise ValueError(f"a span must end after it begins: since {since}, until {until}")
        self.since, self.until = since, until

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        if self.since <= progress.epoch < self.until:
            return self.term(student, teacher, batch, progress)
        return torch.zeros(len(batch), device=student.logits.device)
