"""Distance of two networks' input gradients."""

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import examples
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired

ROLE = "input_gradient"
"""Key under which a method passes derivatives with respect to the inputs to its terms."""


@full_precision
def gradient_distance(student_gradient: Tensor, teacher_gradient: Tensor, normalised: bool) -> Tensor:
    """Half the squared difference of two input gradients, or the squared difference of their directions.

    Args:
        student_gradient: [B, ...].
        teacher_gradient: [B, ...]; gets no gradient.
        normalised: Whether each is scaled to length 1 first. Without, the value is the paper's `|J_S - J_T|^2 / 2`;
            with, Jacobian matching's `|J_S / |J_S| - J_T / |J_T||^2`.

    Returns:
        [B].

    References:
        Zagoruyko, Komodakis, "Paying More Attention to Attention: Improving the Performance of Convolutional
        Neural Networks via Attention Transfer", 2017, section 3.2. https://arxiv.org/abs/1612.03928
        Srinivas, Fleuret, "Knowledge Transfer with Jacobian Matching", 2018. https://arxiv.org/abs/1803.00443

    Example:
        >>> g = torch.tensor([[3.0, 4.0]])
        >>> gradient_distance(2 * g, g, normalised=False), gradient_distance(2 * g, g, normalised=True)
        (tensor([12.5000]), tensor([0.]))
    """
    mine, theirs = student_gradient, teacher_gradient.detach()
    if normalised:
        return examples(_direction(mine) - _direction(theirs)).square().sum(1)
    return examples(mine - theirs).square().sum(1) / 2


def _direction(gradient: Tensor) -> Tensor:
    """Scale to length 1 over all axes but the batch; a zero gradient stays zero."""
    norm = examples(gradient).norm(dim=1)
    scale = torch.where(norm > 0, 1 / torch.where(norm > 0, norm, 1.0), 0.0)
    return gradient * scale.view(-1, *(1,) * (gradient.ndim - 1))


class InputGradient(Paired):
    """Distance of the two networks' input gradients, which a method such as `InputGradients` computes.

    Args:
        normalised: Whether their directions are compared, or the gradients themselves.
    """

    called = "InputGradient"

    def __init__(self, normalised: bool):
        super().__init__([ROLE])
        self.normalised = normalised

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.shapes(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return gradient_distance(mine, theirs, self.normalised)
