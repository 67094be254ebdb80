"""Adversarial training, which gives robust teachers."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.method import Method
from kdx.core.outputs import Step
from kdx.core.ranges import PartialFraction
from kdx.core.schedule import Progress, Schedule, Weight
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.metrics.accuracy import correct
from kdx.models.attack import PGD
from kdx.models.norms import evaluating

Mode = Literal["train", "eval"]


class AdversarialTraining(Method):
    """Runs the student, without a teacher, on adversarial inputs alone, and compares it with the labels.

    Args:
        student: A network that returns `Outputs`.
        spec: Facts of the training data.
        weights: A number or a schedule for "adversarial", the cross-entropy on adversarial inputs.
        label_smoothing: Share of the label's mass that is spread over all classes; the attack uses the labels without
            it.
        attack: The attack, which raises the student's cross-entropy with the labels.
        attack_mode: Mode of the student during the attack. In training mode each step of the attack updates the running
            statistics of its batch norms.

    Raises:
        ValueError: An example has no label.

    References:
        Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018.
        https://arxiv.org/abs/1706.06083
    """

    uses_teacher = False
    frozen = ()

    def __init__(
        self,
        student: nn.Module,
        spec: DataSpec,
        weights: Mapping[str, Weight],
        label_smoothing: PartialFraction | Schedule,
        attack: PGD,
        attack_mode: Mode,
    ):
        super().__init__()
        require_labels(spec, "adversarial training")
        self.student = student
        self.weights = dict(weights)
        self.ce = CrossEntropy(label_smoothing=label_smoothing)
        self.attack = attack
        self.attack_mode: Mode = attack_mode
        self._mean, self._std = spec.mean, spec.std

    def models(self) -> Mapping[str, nn.Module]:
        return {"student": self.student}

    def forward(self, batch: Batch, progress: Progress) -> Step:
        moved = self.student(self._against(batch)).float()
        with torch.autocast(batch.device.type, enabled=False):
            value = self.ce(moved, moved, batch, progress).mean()
        # the student does not run on the clean batch, so the accuracy is that on the moved inputs
        top1 = correct(moved.logits, batch.labels).float().mean()
        return Step({"adversarial": value}, {"adversarial/top1": top1})

    def _against(self, batch: Batch) -> Tensor:
        labels = batch.labels if batch.soft_labels is None else batch.soft_labels

        def objective(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, reduction="none")

        with evaluating(self.student) if self.attack_mode == "eval" else nullcontext():
            return self.attack(lambda x: self.student(x).logits, objective, batch.input_tensor, self._mean, self._std)
