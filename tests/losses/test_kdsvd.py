import numpy as np
import pytest
import torch
from law_case import CLASSES, SPEC

from kdx.core.outputs import Shapes
from kdx.losses.features.kdsvd import KDSVD, _Directions, aligned, main_directions


@pytest.mark.parametrize("shape", [(3, 4, 4), (9, 2, 2)])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_directions_equal_numpys_up_to_sign(shape: tuple[int, int, int], form: torch.memory_format):
    maps = torch.randn(2, *shape).double().contiguous(memory_format=form)
    found = main_directions(maps, 2)
    for n in range(2):
        _, values, vectors = np.linalg.svd(maps[n].flatten(1).T.numpy(), full_matrices=False)
        for k in range(2):
            expected = torch.from_numpy(values[k] * vectors[k])
            sign = torch.sign(expected @ found[n, :, k])
            torch.testing.assert_close(found[n, :, k] * sign, expected)


@pytest.mark.parametrize("positions", [5, 9])
def test_the_gradient_of_directions_is_the_librarys_where_that_exists(positions: int):
    torch.manual_seed(0)
    matrices = torch.randn(2, positions, 5).double().requires_grad_()
    drawn = torch.randn(2, 5, 2).double()
    gradients = []
    for found in (lambda m: _Directions.apply(m, 2), lambda m: torch.linalg.eigh(m.mT @ m)[1][..., -2:].flip(-1)):
        # signs are free, so the value must not depend on them
        value = (drawn * found(matrices)).sum(1).square().sum()
        gradients.append(torch.autograd.grad(value, matrices)[0])
    torch.testing.assert_close(*gradients)


def test_equal_eigenvalues_give_no_nan():
    matrices = torch.diag(torch.tensor([3.0, 0.0, 0.0, 0.0]))[None].requires_grad_()
    (gradient,) = torch.autograd.grad(_Directions.apply(matrices, 2).sum(), matrices)
    assert gradient.isfinite().all()
    flat = torch.zeros(2, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(main_directions(flat, 2).sum(), flat)
    assert gradient.isfinite().all()


def test_the_closest_line_is_taken_in_its_direction():
    candidates = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    target = torch.tensor([[[0.1], [-0.9], [0.3]]])
    assert aligned(candidates, target)[0, :, 0].tolist() == [0.0, -1.0, 0.0]


def test_refuses_other_widths_and_more_directions_than_there_are():
    student = Shapes((CLASSES,), {"a": (3, 4, 4), "b": (4, 2, 2)})
    with pytest.raises(ValueError, match="same widths"):
        KDSVD(["a", "b"], 1).build(student, Shapes((CLASSES,), {"a": (3, 4, 4), "b": (6, 2, 2)}), SPEC)
    with pytest.raises(ValueError, match="fewer"):
        KDSVD(["a", "b"], 4).build(student, student, SPEC)
    with pytest.raises(ValueError, match="at least two roles"):
        KDSVD(["a"], 1)
