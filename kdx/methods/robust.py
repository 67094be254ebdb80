"""Adversarially robust distillation: the student learns on adversarial inputs."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal, Unpack

from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Step
from kdx.core.schedule import Progress
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.checks import require_labels
from kdx.losses.base.term import Term
from kdx.losses.logits.kd import kl_divergence
from kdx.methods.distill import Distilled, SecondInputs
from kdx.methods.term_sum import temperature_report
from kdx.metrics.accuracy import correct
from kdx.models.attack import PGD
from kdx.models.norms import evaluating

Objective = Literal["cross_entropy", "teacher_kl"]
Mode = Literal["train", "eval"]


class RobustDistill(SecondInputs):
    """Runs the student on the batch and on adversarial inputs, and the teacher on the batch alone.

    The terms compare the student, on both, with the teacher's outputs for the clean inputs.

    Args:
        adversarial_terms: Terms on the adversarial inputs, under other names than `terms`, which see the clean ones.
        attack: The attack, which moves inputs against the student.
        objective: The quantity that the attack raises: the student's cross-entropy with the labels, or its divergence
            from the teacher, KL(teacher || student) at temperature 1.
        attack_mode: Mode of the student during the attack. In training mode each step of the attack updates the
            running statistics of its batch norms, as in ARD's code.
        own: As in `Distill`.

    Raises:
        UserError: As in `Distill`; or a name is used twice.

    References:
        Goldblum, Fowl, Feizi, Goldstein, "Adversarially Robust Distillation", 2020. https://arxiv.org/abs/1905.09747
        Zi, Zhao, Ma, Jiang, "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better",
        2021. https://arxiv.org/abs/2108.07969
    """

    option = "adversarial_terms"
    tasks = ONLY_CLASSES

    def __init__(
        self,
        adversarial_terms: Mapping[str, Term],
        attack: PGD,
        objective: Objective,
        attack_mode: Mode,
        **own: Unpack[Distilled],
    ):
        spec = own["spec"]
        if objective == "cross_entropy":
            require_labels(spec, "an attack on the cross-entropy")
        super().__init__(adversarial_terms, **own)
        self.attack = attack
        self.objective: Objective = objective
        self.attack_mode: Mode = attack_mode
        self._mean, self._std = spec.mean, spec.std

    def forward(self, batch: Batch, progress: Progress) -> Step:
        student, teacher = self.outputs(batch)
        adversarial = replace(batch, inputs=self._attacked(batch, teacher), view=None)
        moved = self.student(adversarial.inputs).float()
        terms = self.values(student, teacher, batch, progress, self._first)
        terms |= self.values(moved, teacher, adversarial, progress, self._second)
        right, labelled = correct(moved.logits, batch.labels), batch.labels >= 0
        report = {"adversarial/top1": right.sum() / labelled.sum().clamp(min=1)}
        return Step(terms, report | temperature_report(self.temperatures, progress), student.detach())

    def _attacked(self, batch: Batch, teacher: Outputs) -> Tensor:
        def objective(logits: Tensor) -> Tensor:
            if self.objective == "teacher_kl":
                return kl_divergence(logits, teacher.logits, 1.0, "batchmean")
            labels = batch.labels if batch.soft_labels is None else batch.soft_labels
            return F.cross_entropy(logits, labels, reduction="none")

        with evaluating(self.student) if self.attack_mode == "eval" else nullcontext():
            return self.attack(lambda x: self.student(x).logits, objective, batch.input_tensor, self._mean, self._std)
