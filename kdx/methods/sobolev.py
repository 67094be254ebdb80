"""Sobolev training: the student matches the teacher's outputs and their derivatives with respect to the input."""

from contextlib import nullcontext
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.spec import DataSpec
from kdx.core.task import CLASSES
from kdx.losses.features.jacobian import ROLE
from kdx.methods.distill import Distill, Distilled, differentiable
from kdx.methods.input_gradients import with_feature, with_shape
from kdx.models.derivatives import jacobian, jacobian_vector, vector_jacobian
from kdx.models.double_backward import DoubleBackward
from kdx.models.norms import frozen_batch_norms, has_batch_norms

Derivative = Literal["full", "projected", "forward"]
Quantity = Literal["log_probs", "probs", "logits"]
DERIVATIVES = ("full", "projected", "forward")
QUANTITIES = ("log_probs", "probs", "logits")
PURPOSE = "matching derivatives"


class Sobolev(Distill):
    """Runs student and teacher on inputs with derivatives, and gives the terms the Jacobian of a quantity of each.

    The Jacobian is a feature with the role "jacobian". It is whole ("full": [B, K, ...], one backward pass for each of
    the K outputs) or projected on random directions, drawn anew for each example and step and shared by the two
    networks: directions of the outputs ("projected": `v^T J`, [B, P, ...], with a second backward pass to the weights)
    or of the inputs ("forward": `J u`, [B, P, K], in forward mode, without a second backward pass).

    A unit direction sees a share of the squared Frobenius norm: `E |v^T J|^2 = |J|^2 / K`, `E |J u|^2 = |J|^2 / D`
    for D input numbers. `unbiased` scales the directions by the root of K or D, so that the mean over many directions
    is the value of the whole Jacobian, and the term's weight means the same for all three.

    Batch norms in training tie an example's outputs to the other inputs, so its Jacobian is not defined. A student
    with batch norms makes a second pass for its derivative, with its running statistics.

    "forward" runs in full precision under mixed precision too, see `jacobian_vector`.

    Args:
        derivative: Which form of the Jacobian is matched.
        quantity: The outputs that are differentiated, at temperature 1.
        directions: P, the number of random directions; their squares are averaged. Unused by "full".
        unbiased: Whether directions have the length that makes the estimate unbiased, or length 1.
        own: As in `Distill`.

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
        derivative: Derivative,
        quantity: Quantity,
        directions: PositiveInt,
        unbiased: bool,
        **own: Unpack[Distilled],
    ):
        for name, value, known in (("derivative", derivative, DERIVATIVES), ("quantity", quantity, QUANTITIES)):
            if value not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if quantity != "logits" and own["spec"].task.kind != CLASSES:
            raise UserError(f"quantity={quantity} needs a task with classes, and this task has {own['spec'].task.kind}")
        differentiable(own["teacher"], PURPOSE)
        with frozen_batch_norms(own["student"]):
            self.apart = has_batch_norms(own["student"])
        self.derivative: Derivative = derivative
        self.quantity: Quantity = quantity
        self.directions, self.unbiased = directions, unbiased
        super().__init__(**own)

    def probe(self, spec: DataSpec) -> tuple[Shapes, Shapes]:
        student, teacher = super().probe(spec)
        (outputs,) = self._classes = student.logits
        count = outputs if self.derivative == "full" else self.directions
        shape = (count, outputs) if self.derivative == "forward" else (count, *spec.input_shape)
        return with_shape(student, ROLE, shape), with_shape(teacher, ROLE, shape)

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs]:
        inputs = batch.input_tensor.detach()
        with differentiable(self.teacher, PURPOSE).through_inputs():
            directions = self._draw(inputs)
            taught, theirs = self._derive(self.teacher, inputs, directions, graph=False)
        if self.apart:
            student = self.student(batch.inputs).float()
            with frozen_batch_norms(self.student):
                _, mine = self._derive(self.student, inputs, directions, graph=True)
        else:
            student, mine = self._derive(self.student, inputs, directions, graph=True)
        return with_feature(student, ROLE, mine), with_feature(taught.detach(), ROLE, theirs.detach())

    def _draw(self, inputs: Tensor) -> Tensor | None:
        """Directions [P, B, K] or [P, B, ...]; None for the whole Jacobian."""
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
            with DoubleBackward() if graph else nullcontext():
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
        """Tangents of the quantity, [B, P, K]; the forward mode of torch has no second derivative."""
        if self.quantity == "logits":
            return tangents
        probs = logits.softmax(1).unsqueeze(1)
        moved = tangents - (probs * tangents).sum(2, keepdim=True)
        return moved if self.quantity == "log_probs" else probs * moved
