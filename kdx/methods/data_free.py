"""Distillation without data: a generator makes the images that teacher and student are compared on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.task import ONLY_CLASSES
from kdx.core.types import UNLABELLED, Batch, DataSpec, Step, Turn
from kdx.losses.base.heads import network_with
from kdx.losses.base.term import Term
from kdx.losses.logits.dafl import activation, information, one_hot
from kdx.methods.distill import Distill
from kdx.models.generator import ConvGenerator

TERMS = ("one_hot", "activation", "information")


class DataFree(Distill):
    """Runs generator and teacher on random vectors, and the student on the images, in two turns.

    The generator learns to make images that the teacher takes for real ones; the student learns from the teacher on
    the very same images, whose making gets no gradient from it. Of a batch nothing is read but its size: no image
    and no label of the training set has a part in it.

    Args:
        student, teacher, temperature: As in `Distill`.
        spec: As in `Distill`; the terms are told that there are no labels.
        terms: Terms of the student's turn.
        weights: A number or a schedule for each of them and for the generator's "one_hot", "activation" and
            "information".
        generator: What makes images.
        role: Feature of the teacher whose size is its activation.

    Raises:
        UserError: As in `Distill`; a weight is missing, or the teacher has no derivatives or not that feature.

    References:
        Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian, "Data-Free Learning of Student Networks", 2019.
        https://arxiv.org/abs/1904.01186
    """

    tasks = ONLY_CLASSES
    needs_turns = True
    divisible = False

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
        generator: ConvGenerator,
        role: str,
    ):
        missing = [name for name in TERMS if name not in weights]
        if missing:
            raise UserError(f"method.weights has no '{missing[0]}', which this method cannot do without")
        found = network_with(teacher, "through_inputs")
        if found is None:
            raise UserError(
                f"a generator learns through its teacher, and a {type(teacher).__name__} has no derivatives"
            )
        own = {name: weight for name, weight in weights.items() if name not in TERMS}
        blind = replace(spec, labels=torch.full((spec.num_examples,), UNLABELLED))
        super().__init__(student, teacher, blind, terms, own, temperature)
        try:
            self.probe(spec)[1].feature(role, "teacher")
        except ValueError as error:
            raise UserError(f"method.role: {error}") from error
        self.weights, self.role = dict(weights), role
        self.generator = generator

    def parties(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"generator": (self.generator,), "student": (self.student, self.terms)}

    def turns(self, batch: Batch, progress: Progress) -> Iterator[Turn]:
        size, device = len(batch), batch.device
        images = self.generator(torch.randn(size, self.generator.latent, device=device)).to(batch.input_tensor.dtype)
        with network_with(self.teacher, "through_inputs").through_inputs():
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
        with torch.autocast(device.type, enabled=False):
            terms = {name: term(student, taught, data, progress).mean() for name, term in self.terms.items()}
        report: dict[str, Tensor] = {"generator/agreement": _agreement(student.logits, taught.logits)}
        if isinstance(self.temperature, Schedule):
            report["temperature"] = torch.tensor(at(self.temperature, progress))
        yield Turn("student", Step(terms, report))


def _agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Share of the made-up images on which both predict the same."""
    return (student.detach().argmax(1) == teacher.argmax(1)).float().mean()
