"""Binary cross-entropy with several labels an example."""

import pytest
import torch
from torch.nn import functional as F

from kdx.losses.logits.binary import binary_divergence
from kdx.losses.logits.cross_entropy import cross_entropy
from kdx.losses.logits.labels import label_cross_entropy


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_equals_the_library():
    z, y = torch.randn(7, 4).double(), torch.rand(7, 4).double()
    torch.testing.assert_close(label_cross_entropy(z, y, "mean").mean(), F.binary_cross_entropy_with_logits(z, y))
    torch.testing.assert_close(label_cross_entropy(z, y, "batchmean"), 4 * label_cross_entropy(z, y, "mean"))


def test_the_gradient_is_the_error_of_the_probability():
    z, y = torch.randn(7, 4).double().requires_grad_(), torch.rand(7, 4).double()
    (gradient,) = torch.autograd.grad(label_cross_entropy(z, y, "batchmean").sum(), z)
    torch.testing.assert_close(gradient, z.sigmoid().detach() - y)


def test_a_single_label_is_a_choice_between_two_classes():
    z, y = torch.randn(7, 1).double(), torch.tensor([0, 1, 1, 0, 0, 1, 0])
    two = cross_entropy(torch.cat([torch.zeros_like(z), z], 1), y, 0.0)
    torch.testing.assert_close(label_cross_entropy(z, y[:, None], "batchmean"), two)


def test_probabilities_of_a_teacher_as_labels_give_its_divergence_but_for_the_entropy():
    z, v = torch.randn(7, 4).double(), torch.randn(7, 4).double()
    p = v.sigmoid()
    entropy = label_cross_entropy(v, p, "batchmean")
    torch.testing.assert_close(
        label_cross_entropy(z, p, "batchmean") - entropy, binary_divergence(z, v, 1.0, "batchmean")
    )


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"logits \[B, C\] with labels \[B, C\], got \[4, 1\] and \[4\]"):
        label_cross_entropy(torch.zeros(4, 1), torch.zeros(4), "mean")
