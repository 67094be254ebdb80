import math

import pytest
import torch

from kdx.losses.relations.cc import correlation_congruence, correlations, neighbour_congruence


def test_the_series_converges_to_the_gaussian_kernel():
    features = torch.randn(5, 3).double()
    directions = torch.nn.functional.normalize(features, dim=1)
    expected = torch.exp(-0.4 * torch.cdist(directions, directions).square())
    torch.testing.assert_close(correlations(features, 0.4, 20), expected)


def test_a_sample_correlates_with_itself_the_most():
    kernel = correlations(torch.randn(6, 4).double(), 0.4, 2)
    assert torch.equal(kernel.argmax(1), torch.arange(6))
    assert float(kernel[0, 0]) == pytest.approx(math.exp(-0.8) * (1 + 0.8 + 0.8**2 / 2))


def test_scale_and_rotation_of_the_features_do_not_matter():
    mine, theirs = torch.randn(6, 4).double(), torch.randn(6, 9).double()
    turn, _ = torch.linalg.qr(torch.randn(4, 4).double())
    expected = correlation_congruence(mine, theirs, 0.4, 2)
    torch.testing.assert_close(correlation_congruence(3 * mine @ turn, theirs, 0.4, 2), expected)


def test_neighbours_by_hand():
    mine, theirs = (
        torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.0, 1.0]]),
    )
    # gaps (1, 0), (3, 2), (1, 1): pairs 3 and 5, whose mean is 4
    rows = neighbour_congruence(mine, theirs)
    assert float(rows.mean()) == pytest.approx(4.0)
    assert rows.tolist() == pytest.approx([2.25, 6.0, 3.75])


def test_one_sample_has_no_neighbour():
    mine = torch.randn(1, 4, requires_grad=True)
    rows = neighbour_congruence(mine, torch.randn(1, 4))
    assert rows.tolist() == [0.0]
    (gradient,) = torch.autograd.grad(rows.sum(), mine)
    assert gradient.abs().max() == 0
