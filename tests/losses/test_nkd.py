"""NKD against what it is made of."""

import pytest
import torch

from kdx.core.outputs import Shapes
from kdx.losses.logits.dkd import nontarget_divergence
from kdx.losses.logits.nkd import NKD, nontarget_cross_entropy, target_cross_entropy
from kdx.tasks.classes import image_classes


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_rest_has_the_gradient_of_nckd(temperature: float):
    torch.manual_seed(0)
    z, v, y = torch.randn(6, 5).double().requires_grad_(), torch.randn(6, 5).double(), torch.arange(6) % 5
    losses = [loss(z, v, y, temperature) for loss in (nontarget_cross_entropy, nontarget_divergence)]
    ours, dkds = (torch.autograd.grad(rows.sum(), z)[0] for rows in losses)
    torch.testing.assert_close(ours, dkds)


def test_a_sure_teacher_makes_the_target_part_plain_cross_entropy():
    z, y = torch.randn(4, 5), torch.arange(4)
    v = 1000.0 * torch.eye(5)[y]
    torch.testing.assert_close(target_cross_entropy(z, v, y), torch.nn.functional.cross_entropy(z, y, reduction="none"))


def test_two_classes_are_refused():
    shapes = Shapes((2,), {})
    with pytest.raises(ValueError, match="NKD .* at least 3 classes"):
        NKD(1.5, 1.0).build(shapes, shapes, image_classes(2, (3, 8, 8), 1, (0.0,), (1.0,)))
