"""Learning from labels on inputs that were moved against the network: where robust teachers come from."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.method import Method
from kdx.core.ranges import PartialFraction
from kdx.core.schedule import Progress, Schedule, Weight
from kdx.core.types import Batch, DataSpec, Step
from kdx.losses.base.checks import require_labels
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.models.attack import PGD
from kdx.models.norms import evaluating

Mode = Literal["train", "eval"]


class AdversarialTraining(Method):
    """Runs the student, without a teacher, on inputs moved against it alone, and compares it with the labels there.

    Args:
        student: A network that returns `Outputs`.
        spec: Facts of the training data.
        weights: A number or a schedule for "adversarial", the cross-entropy on moved inputs.
        label_smoothing: Share of the label's mass that is spread over all classes; the attack works against the
            labels as they are.
        attack: How inputs are moved, to raise the student's cross-entropy with the labels.
        attack_mode: Mode of the student while it is attacked. In training mode each of the attack's steps moves
            the statistics of its batch norms.

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
        # what it says of the batch as it is was never asked
        top1 = (moved.logits.argmax(1) == batch.labels).float().mean()
        return Step({"adversarial": value}, {"adversarial/top1": top1})

    def _against(self, batch: Batch) -> Tensor:
        labels = batch.labels if batch.soft_labels is None else batch.soft_labels

        def objective(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, reduction="none")

        with evaluating(self.student) if self.attack_mode == "eval" else nullcontext():
            return self.attack(lambda x: self.student(x).logits, objective, batch.input_tensor, self._mean, self._std)
