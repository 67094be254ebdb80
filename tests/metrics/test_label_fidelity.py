"""Closeness of two networks on several labels."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from kdx.metrics.label_fidelity import LabelFidelity


def test_equals_the_library_for_any_batch_size():
    torch.manual_seed(0)
    student, teacher = (2 * torch.randn(50, 4, dtype=torch.float64) for _ in range(2))
    p, q = Bernoulli(logits=teacher), Bernoulli(logits=student)
    expected = {
        "agreement": float(((student > 0) == (teacher > 0)).double().mean()),
        "kl": float(kl_divergence(p, q).sum(1).mean()),
        "reverse_kl": float(kl_divergence(q, p).sum(1).mean()),
    }
    for size in (1, 7, 50):
        metric = LabelFidelity()
        for z, v in zip(student.split(size), teacher.split(size), strict=True):
            metric.update(z, v)
        assert metric.compute() == pytest.approx(expected, rel=1e-9)


def test_a_network_equals_itself_also_where_it_is_sure():
    logits = torch.tensor([[-800.0, 0.0, 800.0, 3.0]])
    metric = LabelFidelity()
    metric.update(logits, logits)
    assert metric.compute() == {"agreement": 1.0, "kl": 0.0, "reverse_kl": 0.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_never_agrees(bad: float):
    metric = LabelFidelity()
    metric.update(torch.full((3, 2), bad), torch.full((3, 2), bad))
    assert metric.compute()["agreement"] == 0.0
