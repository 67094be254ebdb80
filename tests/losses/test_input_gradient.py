import pytest
import torch
from law_case import CLASSES, SPEC

from kdx.core.outputs import Shapes
from kdx.losses.features.input_gradient import InputGradient, gradient_distance


def test_half_the_squared_difference():
    mine, theirs = torch.randn(3, 2, 4, 4).double(), torch.randn(3, 2, 4, 4).double()
    expected = (mine - theirs).square().sum((1, 2, 3)) / 2
    torch.testing.assert_close(gradient_distance(mine, theirs, False), expected)


def test_directions_are_compared_by_their_cosine():
    mine, theirs = torch.randn(3, 7).double(), torch.randn(3, 7).double()
    expected = 2 - 2 * torch.nn.functional.cosine_similarity(mine, theirs)
    torch.testing.assert_close(gradient_distance(5 * mine, theirs, True), expected)


def test_a_dead_gradient_is_finite():
    mine = torch.zeros(2, 7, requires_grad=True)
    rows = gradient_distance(mine, torch.ones(2, 7), True)
    torch.testing.assert_close(rows, torch.ones(2))
    (gradient,) = torch.autograd.grad(rows.sum(), mine)
    assert gradient.isfinite().all()


def test_is_refused_where_no_method_differentiates():
    shapes = Shapes((CLASSES,), {"pooled": (4,)})
    with pytest.raises(ValueError, match="no feature with role 'input_gradient'"):
        InputGradient(True).build(shapes, shapes, SPEC)
