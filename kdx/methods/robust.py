"""Adversarially robust distillation: the student learns on inputs that were moved against it."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.errors import UserError
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.task import ONLY_CLASSES
from kdx.core.types import Batch, DataSpec, Outputs, Step
from kdx.losses.base.checks import require_labels
from kdx.losses.base.term import Term
from kdx.losses.logits.kd import kl_divergence
from kdx.methods.distill import Distill
from kdx.models.attack import PGD
from kdx.models.norms import evaluating

Objective = Literal["cross_entropy", "teacher_kl"]
Mode = Literal["train", "eval"]


class RobustDistill(Distill):
    """Runs the student on the batch and on inputs moved against it, and the teacher on the batch alone.

    Its terms compare the student with what the teacher says of the clean inputs, on both.

    Args:
        student, teacher, spec, weights, temperature: As in `Distill`.
        terms: Terms on the clean inputs, by name.
        adversarial_terms: Terms on the moved inputs, under other names.
        attack: How inputs are moved; the student is what is attacked.
        objective: What the attack raises: the student's cross-entropy with the labels, or its divergence from the
            teacher, KL(teacher || student) at temperature 1.
        attack_mode: Mode of the student while it is attacked. In training mode each of the attack's steps moves
            the statistics of its batch norms, as in ARD's code.

    Raises:
        UserError: As in `Distill`; or a name is used twice.

    References:
        Goldblum, Fowl, Feizi, Goldstein, "Adversarially Robust Distillation", 2020. https://arxiv.org/abs/1905.09747
        Zi, Zhao, Ma, Jiang, "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better",
        2021. https://arxiv.org/abs/2108.07969
    """

    tasks = ONLY_CLASSES

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        adversarial_terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
        attack: PGD,
        objective: Objective,
        attack_mode: Mode,
    ):
        shared = terms.keys() & adversarial_terms.keys()
        if shared:
            raise UserError(
                f"terms and adversarial_terms must have names of their own; both have: {', '.join(sorted(shared))}"
            )
        if objective == "cross_entropy":
            require_labels(spec, "an attack on the cross-entropy")
        super().__init__(student, teacher, spec, {**terms, **adversarial_terms}, weights, temperature)
        self._adversarial = frozenset(adversarial_terms)
        self.attack = attack
        self.objective: Objective = objective
        self.attack_mode: Mode = attack_mode
        self._mean, self._std = spec.mean, spec.std

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student, teacher = self.outputs(batch)
        inputs = self._against(batch, teacher)
        moved = self.student(inputs).float()
        there = replace(batch, inputs=inputs, view=None)
        with torch.autocast(inputs.device.type, enabled=False):
            terms = {
                name: term(moved, teacher, there, progress).mean()
                if name in self._adversarial
                else term(student, teacher, batch, progress).mean()
                for name, term in self.terms.items()
            }
        hits, labelled = moved.logits.argmax(1) == batch.labels, batch.labels >= 0
        report = {"adversarial/top1": hits.sum() / labelled.sum().clamp(min=1)}
        if isinstance(self.temperature, Schedule):
            report["temperature"] = torch.tensor(at(self.temperature, progress))
        return Step(terms, report, student.detach())

    def _against(self, batch: Batch, teacher: Outputs) -> Tensor:
        def objective(logits: Tensor) -> Tensor:
            if self.objective == "teacher_kl":
                return kl_divergence(logits, teacher.logits, 1.0, "batchmean")
            labels = batch.labels if batch.soft_labels is None else batch.soft_labels
            return F.cross_entropy(logits, labels, reduction="none")

        with evaluating(self.student) if self.attack_mode == "eval" else nullcontext():
            return self.attack(lambda x: self.student(x).logits, objective, batch.input_tensor, self._mean, self._std)
