"""Distillation without data: a generator makes the images on which student and teacher are compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from kdx.core.batch import UNLABELLED, Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Step, Turn
from kdx.core.schedule import Progress
from kdx.core.task import ONLY_CLASSES
from kdx.losses.logits.dafl import activation, information, one_hot
from kdx.methods.distill import Distill, Distilled, differentiable
from kdx.methods.term_sum import temperature_report
from kdx.metrics.fidelity import agreement
from kdx.models.generator import ConvGenerator

TERMS = ("one_hot", "activation", "information")
PURPOSE = "a generator that learns through its teacher"


class GeneratorDistill(Distill):
    """Runs generator and teacher on random vectors, and the student on the generated images, in two turns.

    The generator learns to make images that the teacher takes for real ones. The student then learns from the teacher
    on the same images, detached from the generator. The method reads the size of a batch alone: no image and no label
    of the training set.

    Args:
        generator: The generator.
        role: The teacher's feature whose mean size the generator raises.
        own: As in `Distill`, for the student's turn; the weights also name the generator's "one_hot", "activation"
            and "information". The terms see a data set without labels.

    Raises:
        UserError: As in `Distill`; or a weight is missing, or the teacher has no derivatives or not that feature.

    References:
        Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian, "Data-Free Learning of Student Networks", 2019.
        https://arxiv.org/abs/1904.01186
    """

    tasks = ONLY_CLASSES
    needs_turns = True
    divisible = False

    def __init__(self, generator: ConvGenerator, role: str, **own: Unpack[Distilled]):
        weights, spec = dict(own["weights"]), own["spec"]
        missing = [name for name in TERMS if name not in weights]
        if missing:
            raise UserError(f"method.weights needs a weight for '{missing[0]}', which this method computes")
        differentiable(own["teacher"], PURPOSE)
        unlabelled = replace(spec, labels=torch.full((spec.num_examples,), UNLABELLED))
        student_weights = {name: weight for name, weight in weights.items() if name not in TERMS}
        super().__init__(**{**own, "spec": unlabelled, "weights": student_weights})
        try:
            self.probe(spec)[1].feature(role, "teacher")
        except ValueError as error:
            raise UserError(f"method.role: {error}") from error
        self.weights, self.role = weights, role
        self.generator = generator

    def parties(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"generator": (self.generator,), "student": (self.student, self.terms)}

    def turns(self, batch: Batch, progress: Progress) -> Iterator[Turn]:
        size, device = len(batch), batch.device
        images = self.generator(torch.randn(size, self.generator.latent, device=device)).to(batch.input_tensor.dtype)
        with differentiable(self.teacher, PURPOSE).through_inputs():
            taught = self.teacher(images).float()
        with torch.autocast(device.type, enabled=False):
            made = {
                "one_hot": one_hot(taught.logits).mean(),
                "activation": activation(taught.feature(self.role)).mean(),
                "information": information(taught.logits),
            }
        yield Turn("generator", Step(made))
        images, taught = images.detach(), taught.detach()
        none = torch.full((size,), UNLABELLED, device=device)
        data = Batch.of_classes(images, none, torch.arange(size, device=device))
        student = self.student(images).float()
        terms = self.values(student, taught, data, progress)
        report = {"generator/agreement": _agreement(student.logits, taught.logits)}
        yield Turn("student", Step(terms, report | temperature_report(self.temperatures, progress)))


def _agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Share of the generated images on which both networks predict the same class."""
    return agreement(student.detach(), teacher).float().mean()
