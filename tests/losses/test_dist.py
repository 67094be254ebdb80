"""DIST: Pearson's correlation and its invariance."""

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.logits.dist import DIST, correlation, inter_class, intra_class
from kdx.tasks.classes import image_classes


def test_correlation_equals_the_library():
    torch.manual_seed(0)
    x, y = torch.randn(5, 40).double(), torch.randn(5, 40).double()
    expected = torch.stack([torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(x, y, strict=True)])
    torch.testing.assert_close(correlation(x, y, 1), expected)
    torch.testing.assert_close(correlation(x.T, y.T, 0), expected)


def test_any_rising_line_correlates_fully_and_any_falling_one_against():
    x = torch.randn(4, 9).double()
    torch.testing.assert_close(correlation(x, 3 * x + 7, 1), torch.ones(4).double())
    torch.testing.assert_close(correlation(x, 7 - 0.1 * x, 1), -torch.ones(4).double())


def test_a_constant_correlates_with_nothing():
    # 0.1 is no binary fraction: its mean leaves rounding noise, which must not be taken for variation
    x = torch.full((2, 7), 0.1, requires_grad=True)
    value = correlation(x, torch.randn(2, 7), 1)
    assert value.tolist() == [0.0, 0.0]
    assert torch.autograd.grad(value.sum(), x)[0].abs().max() == 0


def test_the_intra_class_part_is_the_same_for_every_example():
    z, v = torch.randn(6, 4), torch.randn(6, 4)
    assert intra_class(z, v, 2.0).unique().numel() == 1
    assert inter_class(z, v, 2.0).unique().numel() == 6
    # it is the inter-class part of the transposed probabilities
    p, q = (x.softmax(1).T.log() for x in (v, z))
    columns = 1 - correlation(q.exp(), p.exp(), 1)
    torch.testing.assert_close(intra_class(z, v, 1.0)[0], columns.mean())


def test_the_half_over_classes_is_refused_for_two_and_the_half_over_the_batch_teaches():
    torch.manual_seed(0)
    spec, shapes = image_classes(2, (3, 8, 8), 6, (0.0,), (1.0,)), Shapes((2,), {})
    with pytest.raises(ValueError, match="needs at least 3 classes; this data set has 2; inter_weight=0 keeps"):
        DIST(2.0, 2.0, 1.0).build(shapes, shapes, spec)
    term = DIST(0, 2.0, 1.0)
    term.build(shapes, shapes, spec)
    index = torch.arange(6)
    mine, theirs = torch.randn(6, 2).double().requires_grad_(), torch.randn(6, 2).double()
    term(Outputs(mine), Outputs(theirs), Batch.of_classes(index, index % 2, index), Progress(0, 1, 1)).mean().backward()
    assert mine.grad is not None and mine.grad.abs().sum() > 1e-3
    inter = inter_class(mine.detach(), theirs, 1.0)  # two probabilities correlate fully or not at all
    assert ((inter.abs() < 1e-6) | ((inter - 2).abs() < 1e-6)).all()
