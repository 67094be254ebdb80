"""DIST: Pearson's correlation and its invariance."""

import torch

from kdx.losses.logits.dist import correlation, inter_class, intra_class


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
