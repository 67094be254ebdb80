"""Sobolev training: the student learns how the teacher's outputs change with the input, beside what they are."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Schedule, Weight
from kdx.core.task import CLASSES
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.base.heads import network_with
from kdx.losses.base.term import Term
from kdx.losses.features.jacobian import ROLE
from kdx.methods.distill import Distill
from kdx.models.derivatives import jacobian, jacobian_vector, vector_jacobian
from kdx.models.double_backward import Twice
from kdx.models.norms import frozen_norms, has_batch_norms

Derivative = Literal["full", "projected", "forward"]
Quantity = Literal["log_probs", "probs", "logits"]
DERIVATIVES = ("full", "projected", "forward")
QUANTITIES = ("log_probs", "probs", "logits")


class Sobolev(Distill):
    """Runs student and teacher on inputs with derivatives, and gives terms the Jacobian of a quantity of each.

    The Jacobian is a feature with the role "jacobian": whole ("full", [B, K, ...], a backward pass for each of
    the K outputs), or in random directions that are drawn anew for each example and step and shared by the two
    networks: of the outputs ("projected", `v^T J`, [B, P, ...], a second backward pass to the weights) or of the
    inputs ("forward", `J u`, [B, P, K], by forward mode, with no second backward pass).

    A unit direction sees a share of the squared Frobenius norm: `E |v^T J|^2 = |J|^2 / K`, `E |J u|^2 = |J|^2 / D`
    for D input numbers. With `unbiased` the directions are longer by the root of that, so that the mean over
    many is the whole Jacobian's value, and the term's weight means the same for all three.

    Batch norms in training tie an example's outputs to the other inputs, and its Jacobian is not defined. A
    student that has them makes a second pass for its derivative, with its running statistics.

    Under mixed precision the passes of "forward" are in full precision all the same, see `jacobian_vector`.

    Args:
        student, teacher, spec, terms, weights, temperature: As in `Distill`.
        derivative: What is found of the Jacobian.
        quantity: What is differentiated, all at temperature 1.
        directions: P, the number of random directions; their squares are averaged. The whole Jacobian has none.
        unbiased: Whether directions have the length that makes the estimate unbiased, or length 1.

    Raises:
        UserError: As in `Distill`; or the teacher has no derivatives, or a batch norm no running statistics.

    References:
        Czarnecki, Osindero, Jaderberg, Swirszcz, Pascanu, "Sobolev Training for Neural Networks", 2017.
        https://arxiv.org/abs/1706.04859
    """

    tasks = None
    compilable = False

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
        derivative: Derivative,
        quantity: Quantity,
        directions: PositiveInt,
        unbiased: bool,
    ):
        for name, value, known in (("derivative", derivative, DERIVATIVES), ("quantity", quantity, QUANTITIES)):
            if value not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if quantity != "logits" and spec.task.kind != CLASSES:
            raise UserError(f"quantity={quantity} needs a task with classes, and this task has {spec.task.kind}")
        self._differentiable(teacher)
        with frozen_norms(student):
            self.apart = has_batch_norms(student)
        self.derivative: Derivative = derivative
        self.quantity: Quantity = quantity
        self.directions, self.unbiased = directions, unbiased
        super().__init__(student, teacher, spec, terms, weights, temperature)

    def probe(self, spec: DataSpec) -> tuple[Shapes, Shapes]:
        student, teacher = super().probe(spec)
        (outputs,) = self._classes = student.logits
        count = outputs if self.derivative == "full" else self.directions
        found = {ROLE: (count, outputs) if self.derivative == "forward" else (count, *spec.input_shape)}
        return (
            Shapes(student.logits, {**student.features, **found}),
            Shapes(teacher.logits, {**teacher.features, **found}),
        )

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs]:
        inputs = batch.input_tensor.detach()
        frozen = self._differentiable(self.teacher)
        with frozen.through_inputs():
            directions = self._draw(inputs)
            taught, theirs = self._derive(self.teacher, inputs, directions, graph=False)
        if self.apart:
            student = self.student(batch.inputs).float()
            with frozen_norms(self.student):
                _, mine = self._derive(self.student, inputs, directions, graph=True)
        else:
            student, mine = self._derive(self.student, inputs, directions, graph=True)
        return _with(student, mine), _with(taught.detach(), theirs.detach())

    def _draw(self, inputs: Tensor) -> Tensor | None:
        """Directions [P, B, K] or [P, B, ...]; None where there are none to draw."""
        if self.derivative == "full":
            return None
        shape = inputs.shape[1:] if self.derivative == "forward" else self._classes
        drawn = torch.randn(self.directions, len(inputs), *shape, device=inputs.device)
        flat = drawn.flatten(2)
        size = flat.shape[2] if self.unbiased else 1
        return drawn * (size / self.directions) ** 0.5 / flat.norm(dim=2).view(*drawn.shape[:2], *[1] * len(shape))

    def _derive(
        self, network: nn.Module, inputs: Tensor, directions: Tensor | None, graph: bool
    ) -> tuple[Outputs, Tensor]:
        if self.derivative == "forward":
            assert directions is not None
            outputs, tangents = jacobian_vector(network, inputs, directions)
            return outputs.float(), self._along(outputs.logits.float(), tangents.float())
        with torch.enable_grad():
            inputs = inputs.requires_grad_()
            with Twice() if graph else nullcontext():
                outputs = network(inputs).float()
            values = self._value(outputs.logits)
            if directions is None:
                return outputs, jacobian(values, inputs, graph)
            return outputs, vector_jacobian(values, inputs, directions, graph)

    def _value(self, logits: Tensor) -> Tensor:
        if self.quantity == "logits":
            return logits
        return logits.log_softmax(1) if self.quantity == "log_probs" else logits.softmax(1)

    def _along(self, logits: Tensor, tangents: Tensor) -> Tensor:
        """Derivatives of the quantity from those of the logits, [B, P, K]; torch's own have no second derivative."""
        if self.quantity == "logits":
            return tangents
        probs = logits.softmax(1).unsqueeze(1)
        moved = tangents - (probs * tangents).sum(2, keepdim=True)
        return moved if self.quantity == "log_probs" else probs * moved

    @staticmethod
    def _differentiable(teacher: nn.Module) -> Any:
        found = network_with(teacher, "through_inputs")
        if found is None:
            raise UserError(f"derivatives are to be matched, and a {type(teacher).__name__} as teacher has none")
        return found


def _with(outputs: Outputs, found: Tensor) -> Outputs:
    return Outputs(outputs.logits, {**outputs.features, ROLE: found}, outputs.members)
