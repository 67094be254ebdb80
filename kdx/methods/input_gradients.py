"""Matching derivatives: what the inputs do to the two networks' outputs."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.errors import UserError
from kdx.core.ranges import Positive
from kdx.core.schedule import Schedule, Weight
from kdx.core.task import ONLY_CLASSES
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.base.checks import require_labels
from kdx.losses.base.heads import network_with
from kdx.losses.base.term import Term
from kdx.losses.features.input_gradient import ROLE
from kdx.methods.distill import Distill
from kdx.models.double_backward import Twice, inputs_only

Quantity = Literal["cross_entropy", "top_logit", "label_logit"]
QUANTITIES = get_args(Quantity)


class InputGradients(Distill):
    """Runs student and teacher on inputs with gradients, and gives terms the derivative of a number of each.

    The derivative is a feature with the role "input_gradient", like one input in shape. The student's has a
    graph, so that a second backward pass takes its difference from the teacher's to the weights. Where the
    student has batch norms, an example's derivative includes what it does to the others through them: the
    same forward pass serves the labels.

    Args:
        student, teacher, spec, terms, weights, temperature: As in `Distill`.
        quantity: What is differentiated: each network's own cross-entropy with the labels (attention
            transfer), its logit of the teacher's most likely class (Jacobian matching), or its logit of the label,
            that of the dominant class where examples are mixed (what public code knows as Sobolev training).

    Raises:
        UserError: As in `Distill`; or the teacher has no derivatives.
    """

    tasks = ONLY_CLASSES
    compilable = False

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DataSpec,
        terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
        quantity: Quantity,
    ):
        if quantity not in QUANTITIES:
            raise UserError(f"quantity must be one of {', '.join(QUANTITIES)}, got {quantity!r}")
        if quantity != "top_logit":
            require_labels(spec, f"the gradient of the {quantity.replace('_', '-')}")
        self._differentiable(teacher)
        super().__init__(student, teacher, spec, terms, weights, temperature)
        self.quantity: Quantity = quantity

    def probe(self, spec: DataSpec) -> tuple[Shapes, Shapes]:
        student, teacher = super().probe(spec)
        gradient = {ROLE: tuple(spec.input_shape)}
        return (
            Shapes(student.logits, {**student.features, **gradient}),
            Shapes(teacher.logits, {**teacher.features, **gradient}),
        )

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs]:
        inputs = batch.input_tensor.detach().requires_grad_()
        with torch.enable_grad(), self._differentiable(self.teacher).through_inputs():
            taught = self.teacher(inputs).float()
            theirs = self._gradient(taught, taught, inputs, batch, graph=False)
        with Twice():
            student = self.student(inputs).float()
        mine = self._gradient(student, taught, inputs, batch, graph=True)
        return _with(student, mine), _with(taught.detach(), theirs)

    def _gradient(self, outputs: Outputs, taught: Outputs, inputs: Tensor, batch: Batch, graph: bool) -> Tensor:
        if self.quantity == "cross_entropy":
            labels = batch.labels if batch.soft_labels is None else batch.soft_labels
            number = F.cross_entropy(outputs.logits, labels, reduction="sum")
        else:
            classes = taught.logits.argmax(1) if self.quantity == "top_logit" else batch.labels
            number = outputs.logits.gather(1, classes[:, None]).sum()
        with inputs_only():
            (gradient,) = torch.autograd.grad(number, inputs, create_graph=graph)
        return gradient

    @staticmethod
    def _differentiable(teacher: nn.Module) -> Any:
        found = network_with(teacher, "through_inputs")
        if found is None:
            raise UserError(f"derivatives are to be matched, and a {type(teacher).__name__} as teacher has none")
        return found


def _with(outputs: Outputs, gradient: Tensor) -> Outputs:
    return Outputs(outputs.logits, {**outputs.features, ROLE: gradient}, outputs.members)
