"""Matching the networks' gradients with respect to the input."""

from typing import Literal, Unpack, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs, Shapes
from kdx.core.spec import DataSpec
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.checks import require_labels
from kdx.losses.features.input_gradient import ROLE
from kdx.methods.distill import Distill, Distilled, differentiable
from kdx.models.double_backward import DoubleBackward, inputs_only

Quantity = Literal["cross_entropy", "top_logit", "label_logit"]
QUANTITIES = get_args(Quantity)
PURPOSE = "matching derivatives"


class InputGradients(Distill):
    """Runs student and teacher on inputs with gradients, and gives the terms the input gradient of a scalar of each.

    The gradient is a feature with the role "input_gradient" and the shape of an input. The student's has a graph, so
    that a second backward pass takes its difference from the teacher's to the weights. Where the student has batch
    norms, an example's gradient includes its effect on the other examples through them: the same forward pass serves
    the labels.

    Args:
        quantity: The scalar that is differentiated: each network's own cross-entropy with the labels (attention
            transfer), its logit of the teacher's most likely class (Jacobian matching), or its logit of the label
            (the dominant class where examples are mixed; known as Sobolev training in public code).
        own: As in `Distill`.

    Raises:
        UserError: As in `Distill`; or the teacher has no derivatives.
    """

    tasks = ONLY_CLASSES
    compilable = False

    def __init__(self, quantity: Quantity, **own: Unpack[Distilled]):
        if quantity not in QUANTITIES:
            raise UserError(f"quantity must be one of {', '.join(QUANTITIES)}, got {quantity!r}")
        if quantity != "top_logit":
            require_labels(own["spec"], f"the gradient of the {quantity.replace('_', '-')}")
        differentiable(own["teacher"], PURPOSE)
        super().__init__(**own)
        self.quantity: Quantity = quantity

    def probe(self, spec: DataSpec) -> tuple[Shapes, Shapes]:
        student, teacher = super().probe(spec)
        return with_shape(student, ROLE, tuple(spec.input_shape)), with_shape(teacher, ROLE, tuple(spec.input_shape))

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs]:
        inputs = batch.input_tensor.detach().requires_grad_()
        with torch.enable_grad(), differentiable(self.teacher, PURPOSE).through_inputs():
            taught = self.teacher(inputs).float()
            theirs = self._gradient(taught, taught, inputs, batch, graph=False)
        with DoubleBackward():
            student = self.student(inputs).float()
        mine = self._gradient(student, taught, inputs, batch, graph=True)
        return with_feature(student, ROLE, mine), with_feature(taught.detach(), ROLE, theirs)

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


def with_feature(outputs: Outputs, role: str, feature: Tensor) -> Outputs:
    """The outputs with one more feature."""
    return Outputs(outputs.logits, {**outputs.features, role: feature}, outputs.members)


def with_shape(shapes: Shapes, role: str, shape: tuple[int, ...]) -> Shapes:
    """The shapes with that of one more feature."""
    return Shapes(shapes.logits, {**shapes.features, role: shape})
