"""Sharpness gap against a loop."""

import math

import pytest
import torch

from kdx.metrics.sharpness import SharpnessGap


def loop(logits: list[list[float]]) -> float:
    rows = [[z - math.fsum(row) / len(row) for z in row] for row in logits]
    return math.fsum(math.log(math.fsum(math.exp(z) for z in row)) for row in rows) / len(rows)


def test_sharpness_gap_is_a_loop_over_batches_of_any_size():
    torch.manual_seed(0)
    mine, theirs = torch.randn(7, 5), 3 * torch.randn(7, 5)
    metric = SharpnessGap()
    for part in (slice(0, 4), slice(4, 7)):
        metric.update(mine[part], theirs[part])
    a, b = loop(mine.tolist()), loop(theirs.tolist())
    assert metric.compute()["sharpness"] == pytest.approx(abs(a - b) / b, rel=1e-5)


def test_a_constant_and_the_order_of_classes_do_not_matter():
    torch.manual_seed(0)
    z = torch.randn(6, 4)
    metric = SharpnessGap()
    metric.update(z, z[:, [2, 0, 3, 1]] + 5)
    assert metric.compute()["sharpness"] < 1e-7


def test_a_sharper_student_and_a_flatter_one_both_have_a_gap():
    z = torch.tensor([[2.0, 0.0, -2.0]])
    gaps = []
    for factor in (0.5, 1.0, 2.0):
        metric = SharpnessGap()
        metric.update(factor * z, z)
        gaps.append(metric.compute()["sharpness"])
    assert gaps[1] == 0 and min(gaps[0], gaps[2]) > 0.1
