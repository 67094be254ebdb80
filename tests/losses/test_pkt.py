"""PKT in closed form."""

import math

import pytest
import torch

from kdx.losses.relations.pkt import neighbour_probs, probabilistic_transfer


def test_rows_are_distributions():
    probs = neighbour_probs(torch.randn(6, 3, 2, 2))
    assert probs.min() >= 0
    torch.testing.assert_close(probs.sum(1), torch.ones(6))


def test_right_angles_are_half_as_near():
    # cosines 1 and 0 become 1 and 1/2, over 3/2
    torch.testing.assert_close(neighbour_probs(torch.eye(2)), torch.tensor([[2.0, 1.0], [1.0, 2.0]]) / 3)


def test_opposite_samples_in_the_student_alone():
    # p = (1/2, 1/2); q = (1, 0), and the constant keeps its logarithm finite
    rows = probabilistic_transfer(torch.tensor([[1.0], [-1.0]]), torch.ones(2, 1))
    expected = (0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-7)) / 2
    assert rows.tolist() == pytest.approx([expected] * 2, rel=1e-5)


def test_the_length_of_features_does_not_matter():
    torch.manual_seed(0)
    student, teacher, lengths = torch.randn(6, 4).double(), torch.randn(6, 5).double(), torch.rand(6, 1).double()
    expected = probabilistic_transfer(student, teacher)
    torch.testing.assert_close(probabilistic_transfer(lengths * student, 9 * teacher), expected)
