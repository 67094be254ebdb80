"""RKD in closed form, its invariances, and large batches in pieces."""

import math

import pytest
import torch

from kdx.losses.relations import rkd
from kdx.losses.relations.rkd import angle_loss, distance_loss, distances

LOSSES = [distance_loss, angle_loss]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_line_and_a_triangle():
    # equilateral: all distances equal their mean. On a line at 0, 1, 2: 1, 1, 2 over 4/3
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    line = torch.tensor([[0.0], [1.0], [2.0]])
    near, far = (1 - 0.75) ** 2 / 2, (1.5 - 1) ** 2 / 2
    expected = torch.tensor([near + far, 2 * near, near + far]) / 3
    torch.testing.assert_close(distance_loss(line, triangle), expected)
    # cosines: 1/2 at each corner of the triangle; on the line 1 at the ends and -1 in the middle
    ends, middle = (1 - 0.5) ** 2 / 2, (1.5 - 0.5)
    torch.testing.assert_close(angle_loss(line, triangle), 2 * torch.tensor([ends, middle, ends]) / 9)


@pytest.mark.parametrize("loss", LOSSES)
def test_scale_shift_and_rotation_do_not_matter(loss):
    student, teacher = torch.randn(6, 5).double(), torch.randn(6, 3).double()
    rotation, _ = torch.linalg.qr(torch.randn(5, 5).double())
    expected = loss(student, teacher)
    torch.testing.assert_close(loss(40 * student @ rotation - 3, 0.01 * teacher + 5), expected)


def test_the_mean_relative_distance_is_1():
    relative = distances(torch.randn(7, 4).double())
    assert relative.sum().item() == pytest.approx(7 * 6)


def test_close_neighbours_far_from_the_origin_keep_their_distance():
    # |a|^2 + |b|^2 - 2ab would lose these in float32
    features = 1000 + torch.tensor([[0.0], [0.125], [0.375]])
    torch.testing.assert_close(distances(features), distances(features - 1000))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_of_one_and_a_collapsed_batch(loss):
    assert loss(torch.randn(1, 4), torch.randn(1, 3)).tolist() == [0.0]
    student = torch.ones(5, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(student, torch.randn(5, 3)).sum(), student)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_two_samples_that_coincide_in_the_student_alone(loss):
    student, teacher = torch.randn(5, 4), torch.randn(5, 3)
    student[1] = student[0]
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, teacher).mean(), student)
    assert gradient.abs().max() < 10


def test_pieces_equal_the_whole(monkeypatch: pytest.MonkeyPatch):
    student, teacher = torch.randn(7, 5).double().requires_grad_(), torch.randn(7, 3).double()
    whole = angle_loss(student, teacher)
    (expected,) = torch.autograd.grad(whole.square().sum(), student)
    monkeypatch.setattr(rkd, "ELEMENTS_AT_ONCE", 2 * 7 * 7)
    pieces: list[tuple[int, int]] = []
    rows = rkd._angle_rows

    def noted(mine: torch.Tensor, theirs: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        pieces.append((start, stop))
        return rows(mine, theirs, start, stop)

    monkeypatch.setattr(rkd, "_angle_rows", noted)
    parts = angle_loss(student, teacher)
    assert pieces == [(0, 2), (2, 4), (4, 6), (6, 7)]
    (gradient,) = torch.autograd.grad(parts.square().sum(), student)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient, expected)
