"""Two views of each example, a weak and a strong one, with terms of their own."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.task import ONLY_CLASSES
from kdx.core.types import Batch, DataSpec, Outputs, Step
from kdx.losses.base.term import Term
from kdx.methods.distill import Distill


class TwoViews(Distill):
    """Runs student and teacher on the batch and again on its first further view, and sums the terms of both.

    The two views go through the student one after the other, so that its batch norms see each kind of
    image by itself. Its outputs on the first view are what training accuracy is measured on.

    Args:
        student: A network that returns `Outputs`.
        teacher: A frozen network that returns `Outputs`.
        spec: Facts of the training data.
        terms: Terms on the weak view, by name.
        strong_terms: Terms on the strong view, under other names.
        weights: A number or a schedule for each term of both.
        temperature: As in `Distill`.

    Raises:
        UserError: As in `Distill`; also where a name is used for both views.
    """

    tasks = ONLY_CLASSES
    num_views = 2

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        strong_terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
    ):
        shared = terms.keys() & strong_terms.keys()
        if shared:
            raise UserError(
                f"terms and strong_terms must have names of their own; both have: {', '.join(sorted(shared))}"
            )
        super().__init__(student, teacher, spec, {**terms, **strong_terms}, weights, temperature)
        self._strong = frozenset(strong_terms)

    def forward(self, batch: Batch, progress: Progress) -> Step:
        if not batch.views:
            raise UserError(
                "this method learns from two views of each example, but the augmentation makes one; "
                "choose augmentation=two_views (any data with bytes for pixels) or augmentation=two_shifts"
            )
        weak, terms = self._view(replace(batch, views=()), False, progress)
        terms |= self._view(replace(batch, inputs=batch.views[0], views=(), view=None), True, progress)[1]
        report = {}
        if isinstance(self.temperature, Schedule):
            report["temperature"] = torch.tensor(at(self.temperature, progress))
        return Step({name: terms[name] for name in self.terms}, report, weak.detach())

    def _view(self, batch: Batch, strong: bool, progress: Progress) -> tuple[Outputs, dict[str, Tensor]]:
        chosen = {name: term for name, term in self.terms.items() if (name in self._strong) == strong}
        student, teacher = self.outputs(batch)
        with torch.autocast(batch.device.type, enabled=False):
            return student, {name: term(student, teacher, batch, progress).mean() for name, term in chosen.items()}
