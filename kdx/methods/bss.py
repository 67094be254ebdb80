"""Distillation on samples near the teacher's decision boundary."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal, Unpack

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Step
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress, at
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.checks import require_labels
from kdx.losses.base.term import Term
from kdx.methods.distill import Distilled, SecondInputs, differentiable
from kdx.methods.term_sum import temperature_report
from kdx.metrics.accuracy import correct
from kdx.models.attack import BoundaryAttack
from kdx.models.norms import frozen_batch_norms

Correct = Literal["teacher", "both"]
Norms = Literal["train", "frozen"]
PURPOSE = "an attack that moves samples to the boundary"


class BoundarySamples(SecondInputs):
    """Runs both networks on the batch, and again on samples of it that an attack moves to the teacher's boundary.

    Candidates are the samples that are classified correctly. The attack moves those on which the two networks differ
    most, each towards a class drawn by the teacher's probabilities of the other classes. While all boundary terms have
    weight 0, as at the end of the authors' schedule, the attack does not run.

    Args:
        boundary_terms: Terms on the boundary samples, under other names than `terms`, which see the batch; their mean
            is over the boundary samples.
        attack: The attack.
        most: Largest number of samples that the attack moves per batch.
        correct: The networks that must classify a candidate correctly: the teacher or both.
        norms: Whether the student's batch norms treat the boundary samples as training data or are frozen there. They
            are frozen for a single sample, which has no variance.
        own: As in `Distill`.

    Raises:
        UserError: As in `Distill`; or a name is used twice, or the teacher has no derivatives.

    References:
        Heo, Lee, Yun, Choi, "Knowledge Distillation with Adversarial Samples Supporting Decision Boundary", 2019.
        https://arxiv.org/abs/1805.05532
    """

    tasks = ONLY_CLASSES
    divisible = False
    option = "boundary_terms"

    def __init__(
        self,
        boundary_terms: Mapping[str, Term],
        attack: BoundaryAttack,
        most: PositiveInt,
        correct: Correct,
        norms: Norms,
        **own: Unpack[Distilled],
    ):
        require_labels(own["spec"], "BSS")
        differentiable(own["teacher"], PURPOSE)
        super().__init__(boundary_terms, **own)
        self.attack, self.most = attack, most
        self.correct: Correct = correct
        self.norms: Norms = norms

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student, teacher = self.outputs(batch)
        device = batch.device
        terms = self.values(student, teacher, batch, progress, self._first)
        terms |= {name: torch.zeros((), device=device) for name in self._second}
        moved, crossed = 0.0, 0.0
        if any(at(self.weights[name], progress) for name in self._second):
            chosen = self._choose(student.logits.detach(), teacher.logits, batch.labels)
            if len(chosen):
                on_boundary, crossed = self._at_boundary(chosen, batch, teacher.logits[chosen], progress)
                terms |= on_boundary
                moved = len(chosen) / len(batch)
        report = {"boundary/moved": torch.tensor(moved), "boundary/crossed": torch.as_tensor(crossed)}
        return Step(terms, report | temperature_report(self.temperatures, progress), student.detach())

    def _choose(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Positions of the samples to move, int64 [N] with N at most `most`."""
        right = correct(teacher, labels)
        if self.correct == "both":
            right &= correct(student, labels)
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
        with differentiable(self.teacher, PURPOSE).through_inputs():
            inputs = self.attack(lambda x: self.teacher(x).logits, batch.input_tensor[chosen], targets)
        samples = Batch.of_classes(inputs, batch.labels[chosen], batch.index[chosen])
        frozen = self.norms == "frozen" or len(chosen) == 1
        with frozen_batch_norms(self.student) if frozen else nullcontext():
            student = self.student(inputs).float()
        teacher: Outputs = self.teacher(inputs).float()
        terms = self.values(student, teacher, samples, progress, self._second)
        return terms, (teacher.logits.argmax(1) != base).float().mean()
