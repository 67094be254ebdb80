"""WSLD: the weight, its corners, and that it is a constant."""

import pytest
import torch
from torch.nn import functional as F

from kdx.losses.logits.kd import soft_cross_entropy
from kdx.losses.logits.wsld import soft_label_weights, weighted_soft_cross_entropy


def test_a_student_as_good_as_its_teacher_weighs_1_less_1_over_e():
    z, y = torch.randn(6, 4), torch.arange(6) % 4
    torch.testing.assert_close(soft_label_weights(z, z, y), torch.full((6,), 1 - torch.e**-1))


def test_the_worse_the_student_the_more_the_soft_labels_count():
    v, y = torch.zeros(5, 4), torch.zeros(5, dtype=torch.long)
    z = torch.zeros(5, 4)
    z[:, 0] = torch.tensor([20.0, 4.0, 0.0, -4.0, -60.0])
    weights = soft_label_weights(z, v, y)
    assert (weights.diff() > 0).all()
    assert weights[0].item() == pytest.approx(0, abs=1e-6)
    assert weights[-1].item() == pytest.approx(1)


def test_a_teacher_whose_loss_rounds_to_nothing():
    z, y = torch.tensor([[0.0, 0.0], [200.0, 0.0]], requires_grad=True), torch.tensor([0, 0])
    v = torch.tensor([[200.0, 0.0], [200.0, 0.0]])
    assert soft_label_weights(z, v, y).tolist() == [1.0, 0.0]
    rows = weighted_soft_cross_entropy(z, v, y, 4.0)
    assert torch.autograd.grad(rows.sum(), z)[0].isfinite().all()


def test_the_gradient_takes_the_weight_for_a_constant():
    torch.manual_seed(0)
    z, v, y = torch.randn(6, 5).double().requires_grad_(), torch.randn(6, 5).double(), torch.arange(6) % 5
    rows = weighted_soft_cross_entropy(z, v, y, 4.0)
    (gradient,) = torch.autograd.grad(rows.sum(), z)
    (plain,) = torch.autograd.grad(soft_cross_entropy(z, v, 4.0, "batchmean").sum(), z)
    ratio = F.cross_entropy(z, y, reduction="none") / (F.cross_entropy(v, y, reduction="none") + 1e-7)
    torch.testing.assert_close(gradient, (1 - (-ratio).exp()).detach()[:, None] * plain)
