import pytest
import torch
from law_case import CLASSES, SPEC, START

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.losses.features.jacobian import JacobianDistance, jacobian_distance


def test_the_squared_frobenius_distance_of_each_example():
    mine, theirs = torch.randn(3, 5, 2, 4, 4).double(), torch.randn(3, 5, 2, 4, 4).double()
    expected = [float(((a - b) ** 2).sum()) for a, b in zip(mine, theirs, strict=True)]
    assert jacobian_distance(mine, theirs).tolist() == pytest.approx(expected, rel=1e-12)


def test_gradient_reaches_the_student_alone():
    mine, theirs = (torch.randn(2, 5, 3).double().requires_grad_() for _ in range(2))
    term = JacobianDistance()
    y = torch.arange(2)
    logits = torch.zeros(2, CLASSES)
    rows = term(
        Outputs(logits, {"jacobian": mine}), Outputs(logits, {"jacobian": theirs}), Batch.of_classes(y, y, y), START
    )
    rows.sum().backward()
    torch.testing.assert_close(mine.grad, 2 * (mine - theirs).detach())
    assert theirs.grad is None


def test_is_refused_where_no_method_differentiates():
    shapes = Shapes((CLASSES,), {"pooled": (4,)})
    with pytest.raises(ValueError, match="no feature with role 'jacobian'"):
        JacobianDistance().build(shapes, shapes, SPEC)
