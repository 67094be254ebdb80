"""Fidelity against loops."""

import math

import pytest
import torch

from kdx.metrics.fidelity import ClassFidelity, agreement, prediction_divergence


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def loop_kl(z: list[float], v: list[float]) -> float:
    def log_probs(row: list[float]) -> list[float]:
        total = math.log(sum(math.exp(x) for x in row))
        return [x - total for x in row]

    return sum(math.exp(a) * (a - b) for a, b in zip(log_probs(z), log_probs(v), strict=True))


def test_divergence_equals_the_loop():
    z, v = torch.randn(30, 5), torch.randn(30, 5)
    expected = [loop_kl(a, b) for a, b in zip(z.tolist(), v.tolist(), strict=True)]
    assert prediction_divergence(z, v).tolist() == pytest.approx(expected, rel=1e-10)


def test_a_class_that_is_ruled_out_adds_nothing():
    v = torch.tensor([[-math.inf, 0.0, 1.0]])
    assert prediction_divergence(v, v).item() == 0.0


def test_agreement_counts_equal_predictions():
    z, v = torch.randn(50, 3), torch.randn(50, 3)
    expected = [
        row.index(max(row)) == other.index(max(other)) for row, other in zip(z.tolist(), v.tolist(), strict=True)
    ]
    assert agreement(z, v).tolist() == expected


def test_a_diverged_student_agrees_with_nobody():
    assert not agreement(torch.full((4, 3), math.nan), torch.randn(4, 3)).any()
    assert not agreement(torch.full((4, 3), math.nan), torch.full((4, 3), math.nan)).any()


def test_a_copy_is_faithful():
    v, metric = torch.randn(20, 5), ClassFidelity()
    metric.update(v + 3.0, v)
    assert metric.compute() == pytest.approx({"agreement": 1.0, "kl": 0.0, "reverse_kl": 0.0}, abs=1e-12)


@pytest.mark.parametrize("size", [1, 9, 50])
def test_batches_do_not_matter_and_both_directions_are_told_apart(size: int):
    z, v, metric = torch.randn(50, 4), 2 * torch.randn(50, 4), ClassFidelity()
    for a, b in zip(z.split(size), v.split(size), strict=True):
        metric.update(a, b)
    pairs = list(zip(z.tolist(), v.tolist(), strict=True))
    result = metric.compute()
    assert result["kl"] == pytest.approx(sum(loop_kl(b, a) for a, b in pairs) / 50, rel=1e-10)
    assert result["reverse_kl"] == pytest.approx(sum(loop_kl(a, b) for a, b in pairs) / 50, rel=1e-10)
    assert result["agreement"] == (z.argmax(1) == v.argmax(1)).double().mean().item()
