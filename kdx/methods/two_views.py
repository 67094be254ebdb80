"""Two views of each example, a weak and a strong one, with terms of their own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Unpack

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Step
from kdx.core.schedule import Progress
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.term import Term
from kdx.methods.distill import Distilled, SecondInputs
from kdx.methods.term_sum import temperature_report


class TwoViews(SecondInputs):
    """Runs student and teacher on the batch and again on its first further view, and sums the terms of both.

    The student sees the two views one after the other, so that its batch norms take statistics of each view alone.
    Training accuracy is that of the first view.

    Args:
        strong_terms: Terms on the strong view, under other names than `terms`, which see the weak view.
        own: As in `Distill`.

    Raises:
        UserError: As in `Distill`; or a name is used for both views.
    """

    tasks = ONLY_CLASSES
    num_views = 2
    option = "strong_terms"

    def __init__(self, strong_terms: Mapping[str, Term], **own: Unpack[Distilled]):
        super().__init__(strong_terms, **own)

    def forward(self, batch: Batch, progress: Progress) -> Step:
        if not batch.views:
            raise UserError(
                "this method learns from two views of each example, but the augmentation makes one; "
                "choose augmentation=two_views (any data with bytes for pixels) or augmentation=two_shifts"
            )
        weak = replace(batch, views=())
        strong = replace(batch, inputs=batch.views[0], views=(), view=None)
        student, teacher = self.outputs(weak)
        terms = self.values(student, teacher, weak, progress, self._first)
        terms |= self.values(*self.outputs(strong), strong, progress, self._second)
        return Step(terms, temperature_report(self.temperatures, progress), student.detach())
