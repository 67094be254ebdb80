"""The generator's losses against loops in double precision and closed forms."""

import math

import pytest
import torch

from kdx.losses.logits.dafl import activation, information, one_hot


def logits(size: int = 5, classes: int = 4) -> torch.Tensor:
    return torch.randn(size, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def test_they_are_the_sums_of_the_paper():
    z, f = logits(), torch.randn(5, 3, 2, dtype=torch.float64)
    p = [[math.exp(v) / sum(math.exp(w) for w in row) for v in row] for row in z.tolist()]
    torch.testing.assert_close(one_hot(z), torch.tensor([-math.log(max(row)) for row in p], dtype=torch.float64))
    mean = [sum(row[c] for row in p) / 5 for c in range(4)]
    assert float(information(z)) == pytest.approx(sum(q * math.log10(q) for q in mean))
    sizes = [-sum(abs(v) for v in row.flatten().tolist()) / 6 for row in f]
    torch.testing.assert_close(activation(f), torch.tensor(sizes, dtype=torch.float64))


def test_information_lies_between_one_class_and_all():
    sure = 60 * torch.eye(4, dtype=torch.float64)
    assert float(information(sure)) == pytest.approx(-math.log10(4))
    assert float(information(sure[:1].expand(4, -1))) == pytest.approx(0, abs=1e-12)
    assert float(one_hot(sure).sum()) == pytest.approx(0, abs=1e-12)


def test_a_common_shift_of_the_logits_changes_nothing_and_gradients_are_right():
    z = logits().requires_grad_()
    for loss in (one_hot, information):
        torch.testing.assert_close(loss(z + 7), loss(z))
        assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradcheck(activation, torch.randn(3, 4, dtype=torch.float64).add_(3).requires_grad_())


def test_half_precision_and_large_logits_stay_finite():
    z = torch.tensor([[100.0, -100.0, 0.0]]).bfloat16().requires_grad_()
    for value in (one_hot(z).sum(), information(z), activation(z).sum()):
        (gradient,) = torch.autograd.grad(value, z)
        assert value.dtype == torch.float32 and value.isfinite() and gradient.isfinite().all()
