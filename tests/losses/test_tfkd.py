"""Tf-KD: label smoothing in another dress, and what the code makes of it."""

import pytest
import torch

from kdx.core.outputs import Shapes
from kdx.losses.logits.cross_entropy import cross_entropy
from kdx.losses.logits.tfkd import VirtualTeacher, virtual_divergence, virtual_probs
from kdx.tasks.classes import image_classes


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return 2 * torch.randn(8, 10).double().requires_grad_(), torch.arange(8)


def gradient(rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(rows.sum(), z)[0]


def test_at_temperature_1_it_is_label_smoothing(sample):
    z, y = sample
    # smoothing s gives the label 1 - s + s / C
    smoothed = cross_entropy(z, y, 0.2)
    rows = virtual_divergence(z, y, 0.8 + 0.02, 1.0, "distribution")
    torch.testing.assert_close(gradient(rows, z), gradient(smoothed, z))
    assert (smoothed - rows).std() < 1e-12


def test_softening_the_distribution_keeps_its_order_and_flattens_it():
    p = virtual_probs(torch.zeros(1, 4), torch.tensor([2]), 0.9)
    torch.testing.assert_close(p, torch.tensor([[1, 1, 27, 1]]) / 30)
    z = (p.log() / 20).requires_grad_()
    # the student that equals the softened teacher at 20 is one whose logits at 1 are 20 times these
    assert virtual_divergence(20 * z, torch.tensor([2]), 0.9, 20.0, "distribution").abs().max() < 1e-4


def test_the_authors_code_asks_for_a_nearly_uniform_student():
    # softmax of (0.99, 0.01 / 99, ...) over 20: whatever the probabilities, within 5 % of each other
    y = torch.tensor([0])
    target = (virtual_probs(torch.zeros(1, 100), y, 0.99) / 20).softmax(1)
    assert target.max() / target.min() == pytest.approx(torch.tensor(0.99 / 20).exp().item(), rel=1e-4)
    uniform = virtual_divergence(torch.zeros(1, 100), y, 0.99, 20.0, "probabilities")
    assert uniform.item() < 1e-4
    assert virtual_divergence(10 * torch.eye(100)[:1], y, 0.99, 20.0, "probabilities").item() > 1


def test_another_word_and_a_single_class_are_refused():
    with pytest.raises(ValueError, match="'distribution' or 'probabilities', got 'logits'"):
        virtual_divergence(torch.zeros(1, 3), torch.tensor([0]), 0.9, 1.0, "logits")
    with pytest.raises(ValueError, match="at least 2 classes"):
        VirtualTeacher(0.9, 20.0, "distribution").build(
            Shapes((1,), {}), None, image_classes(1, (3, 8, 8), 1, (0.0,), (1.0,))
        )
