"""Refuses distillers before they train, by their values and gradients on a few batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from kdx.config.schema import Node, RunConfig
from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress
from kdx.core.seed import seeded
from kdx.core.spec import DataSpec
from kdx.losses.base.term import Term
from kdx.models.probe import probe
from kdx.runs.build import build_light, build_loaders, make, start_student, stream_seed
from kdx.runs.run import train_teacher
from kdx.runs.teacher import find_weights, load_teacher

START = Progress(step=0, steps=1, epochs=1)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the check before training.

    Attributes:
        batches: Training batches that are read.
        least: Smallest weighted loss.
        most: Largest weighted loss.
    """

    batches: PositiveInt
    least: Positive
    most: Positive


class Screen:
    """Calls a term on the outputs of an untrained student and of the teacher.

    A term is refused if it cannot be built for the networks, if its value or gradient is not finite, if the gradient
    is 0, if its weighted value is outside the limits, or if the teacher itself in the student's place has no lower
    value, with a layer between the networks left out.

    Args:
        config: Prepared config of a candidate; its method is not used.
        limits: The limits.
    """

    def __init__(self, config: RunConfig, limits: Limits):
        light = build_light(config)
        loaders = build_loaders(config, light)
        teacher = load_teacher(config, find_weights(config, train_teacher), loaders, light.device).network
        student = start_student(config, None).to(light.device)
        self.limits, self.seed = limits, stream_seed(config, "seed")
        self.spec: DataSpec = loaders.spec
        self.shapes = probe(student, self.spec.inputs, light.device), probe(teacher, self.spec.inputs, light.device)
        self.device = light.device
        self.batches: list[tuple[Outputs, Outputs, Batch]] = []
        nets = student.eval(), teacher.eval()
        for batch in islice(loaders.train.epoch(0), limits.batches):
            batch = batch.to(light.device)
            with torch.no_grad():
                mine, theirs = (net(batch.inputs).float() for net in nets)
            self.batches.append((_plain(mine), _plain(theirs), batch))

    def refuses(self, term: Node, weight: float) -> str | None:
        """Why a distiller is refused; None if it is not.

        Args:
            term: Node of its term.
            weight: Weight of the term.
        """
        try:
            built = self._built(term, self.shapes)
            alike = self._built({**term, "align": "none"}, (self.shapes[1], self.shapes[1]))
        except ValueError as error:
            return f"cannot be built: {error}"
        for student, teacher, batch in self.batches:
            if (reason := self._fault(built, alike, student, teacher, batch, weight)) is not None:
                return reason
        return None

    def _fault(
        self, term: Term, alike: Term, student: Outputs, teacher: Outputs, batch: Batch, weight: float
    ) -> str | None:
        leaves = Outputs(_leaf(student.logits), {role: _leaf(f) for role, f in student.features.items()})
        with seeded(self.seed, "screen", "value"):
            value = term(leaves, teacher, batch, START).mean() * weight
        if not value.isfinite():
            return f"its loss is {value.item():g}"
        inputs = [leaves.logits, *leaves.features.values()]
        found = [g for g in torch.autograd.grad(value, inputs, allow_unused=True) if g is not None]
        if not all(g.isfinite().all() for g in found):
            return "its gradient is not finite"
        if not any(bool(g.abs().sum() > 0) for g in found):
            return "its gradient is 0"
        if not self.limits.least <= value.item() <= self.limits.most:
            return f"its weighted loss {value.item():.2g} is not from {self.limits.least:g} to {self.limits.most:g}"
        with torch.no_grad(), seeded(self.seed, "screen", "value"):
            own = alike(teacher, teacher, batch, START).mean() * weight
        if not own < value.detach():
            return f"its loss {own.item():.2g} of the teacher itself is not below the student's {value.item():.2g}"
        return None

    def _built(self, node: Node, shapes: tuple[Shapes, Shapes]) -> Term:
        with seeded(self.seed, "screen", "term"):
            term: Term = make(node)
            term.build(shapes[0], shapes[1], self.spec)
        return term.to(self.device)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _plain(outputs: Outputs) -> Outputs:
    """Outputs that can be read any number of times."""
    features: Mapping[str, Tensor] = {role: outputs.features[role] for role in outputs.features}
    return Outputs(outputs.logits, features)
