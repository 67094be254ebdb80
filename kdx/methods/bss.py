"""Distillation on samples that support the teacher's decision boundary."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.task import ONLY_CLASSES
from kdx.core.types import Batch, DataSpec, Outputs, Step
from kdx.losses.base.checks import require_labels
from kdx.losses.base.heads import network_with
from kdx.losses.base.term import Term
from kdx.methods.distill import Distill
from kdx.models.attack import BoundaryAttack
from kdx.models.norms import frozen_norms

Correct = Literal["teacher", "both"]
Norms = Literal["train", "frozen"]


class BoundarySamples(Distill):
    """Runs both networks on the batch, and again on samples of it that were moved to the teacher's boundary.

    Of the samples that are classified correctly, those where the two networks differ most are moved, each
    towards a class drawn by the teacher's probabilities of the others. Where the boundary terms all weigh
    nothing, as at the end of the authors' schedule, nothing is moved.

    Args:
        student, teacher, spec, weights, temperature: As in `Distill`.
        terms: Terms on the batch, by name.
        boundary_terms: Terms on the boundary samples, under other names; their mean is over those samples.
        attack: How a sample is moved.
        most: Samples of a batch that are moved, at most.
        correct: Who must classify a sample correctly for it to be moved.
        norms: Whether the student's batch norms see the boundary samples as training data, or are frozen there.
            A single sample never moves them, since it has no statistics.

    Raises:
        UserError: As in `Distill`; a name is used twice; or the teacher has no derivatives.

    References:
        Heo, Lee, Yun, Choi, "Knowledge Distillation with Adversarial Samples Supporting Decision Boundary", 2019.
        https://arxiv.org/abs/1805.05532
    """

    tasks = ONLY_CLASSES
    divisible = False

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        boundary_terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
        attack: BoundaryAttack,
        most: PositiveInt,
        correct: Correct,
        norms: Norms,
    ):
        shared = terms.keys() & boundary_terms.keys()
        if shared:
            raise UserError(
                f"terms and boundary_terms must have names of their own; both have: {', '.join(sorted(shared))}"
            )
        require_labels(spec, "BSS")
        self._differentiable(teacher)
        super().__init__(student, teacher, spec, {**terms, **boundary_terms}, weights, temperature)
        self._boundary = tuple(boundary_terms)
        self.attack, self.most = attack, most
        self.correct: Correct = correct
        self.norms: Norms = norms

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student, teacher = self.outputs(batch)
        device = batch.device
        with torch.autocast(device.type, enabled=False):
            terms = {
                name: term(student, teacher, batch, progress).mean()
                for name, term in self.terms.items()
                if name not in self._boundary
            }
        terms |= {name: torch.zeros((), device=device) for name in self._boundary}
        moved, crossed = 0.0, 0.0
        if any(at(self.weights[name], progress) for name in self._boundary):
            chosen = self._choose(student.logits.detach(), teacher.logits, batch.labels)
            if len(chosen):
                on_boundary, crossed = self._at_boundary(chosen, batch, teacher.logits[chosen], progress)
                terms |= on_boundary
                moved = len(chosen) / len(batch)
        report = {"boundary/moved": torch.tensor(moved), "boundary/crossed": torch.as_tensor(crossed)}
        if isinstance(self.temperature, Schedule):
            report["temperature"] = torch.tensor(at(self.temperature, progress))
        return Step({name: terms[name] for name in self.terms}, report, student.detach())

    def _choose(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Positions of the samples to move, int64 [N] with N at most `most`."""
        right = teacher.argmax(1) == labels
        if self.correct == "both":
            right &= student.argmax(1) == labels
        chosen = right.nonzero().flatten()
        if len(chosen) <= self.most:
            return chosen
        apart = (teacher[chosen].softmax(1) - student[chosen].softmax(1)).square()
        apart = apart.sum(1) - apart.gather(1, labels[chosen, None]).squeeze(1)
        return chosen[apart.topk(self.most).indices]

    def _at_boundary(
        self, chosen: Tensor, batch: Batch, teacher_logits: Tensor, progress: Progress
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The boundary terms, and the share of the samples whose prediction by the teacher changed."""
        base = teacher_logits.argmax(1)
        # softmax over the others is p_k / (1 - p_base), also where p_base rounds to 1
        others = teacher_logits.scatter(1, base[:, None], -torch.inf)
        targets = torch.multinomial(others.softmax(1), 1).squeeze(1)
        with self._differentiable(self.teacher).through_inputs():
            inputs = self.attack(lambda x: self.teacher(x).logits, batch.input_tensor[chosen], targets)
        samples = Batch.of_classes(inputs, batch.labels[chosen], batch.index[chosen])
        frozen = self.norms == "frozen" or len(chosen) == 1
        with frozen_norms(self.student) if frozen else nullcontext():
            student = self.student(inputs).float()
        teacher: Outputs = self.teacher(inputs).float()
        with torch.autocast(inputs.device.type, enabled=False):
            terms = {name: self.terms[name](student, teacher, samples, progress).mean() for name in self._boundary}
        return terms, (teacher.logits.argmax(1) != base).float().mean()

    @staticmethod
    def _differentiable(teacher: nn.Module) -> Any:
        found = network_with(teacher, "through_inputs")
        if found is None:
            raise UserError(f"samples are moved by the teacher's derivatives, and a {type(teacher).__name__} has none")
        return found
