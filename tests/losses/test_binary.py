"""Binary losses against the library, and their gradients."""

import pytest
import torch
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.losses.logits.binary import HardBinaryCrossEntropy, binary_cross_entropy, binary_divergence
from kdx.losses.logits.kd import kl_divergence

START = Progress(0, 100, 10)


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return 2 * torch.randn(6, 5).double(), 2 * torch.randn(6, 5).double()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_cross_entropy_equals_the_library(logits, temperature: float):
    z, v = logits
    expected = F.binary_cross_entropy_with_logits(z, (v / temperature).softmax(1))
    torch.testing.assert_close(binary_cross_entropy(z, v, temperature, "mean").mean(), expected)
    torch.testing.assert_close(binary_cross_entropy(z, v, temperature, "batchmean").mean(), 5 * expected)


def test_its_minimum_has_the_teachers_probabilities_as_sigmoids(logits):
    _, v = logits
    z = torch.logit(v.softmax(1)).requires_grad_()
    (gradient,) = torch.autograd.grad(binary_cross_entropy(z, v, 1.0, "mean").sum(), z)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_is_cross_entropy_less_entropy_and_has_the_same_gradient(logits, temperature: float):
    z, v = logits[0].requires_grad_(), logits[1]
    target = (v / temperature).sigmoid()
    cross = F.binary_cross_entropy_with_logits(z / temperature, target, reduction="none")
    entropy = F.binary_cross_entropy(target, target, reduction="none")
    rows = binary_divergence(z, v, temperature, "batchmean")
    torch.testing.assert_close(rows, temperature**2 * (cross - entropy).sum(1))
    (gradient,) = torch.autograd.grad(rows.sum(), z)
    torch.testing.assert_close(gradient, temperature * ((z / temperature).sigmoid() - target))


def test_a_label_by_itself_is_a_choice_between_two_classes():
    # sigmoid(x) is the softmax of (x, 0)
    z, v = torch.randn(6, 1).double(), torch.randn(6, 1).double()
    pairs = (torch.cat([x, torch.zeros_like(x)], 1) for x in (z, v))
    expected = kl_divergence(*pairs, 4.0, "batchmean")
    torch.testing.assert_close(binary_divergence(z, v, 4.0, "batchmean"), expected)


def test_labels_do_not_compete():
    z, v = torch.zeros(1, 3).double(), torch.tensor([[2.0, 2.0, -2.0]]).double()
    more = torch.tensor([[2.0, 0.0, 0.0]]).double()
    cells = [binary_divergence(x[:, :1], v[:, :1], 1.0, "batchmean") for x in (z, more)]
    whole = [binary_divergence(x, v, 1.0, "batchmean") for x in (z, more)]
    torch.testing.assert_close(whole[0] - whole[1], cells[0] - cells[1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_binary_cross_entropy_is_timms(logits, smoothing: float):
    from timm.loss.binary_cross_entropy import BinaryCrossEntropy as Timms

    z, labels = logits[0], torch.tensor([0, 4, 2, 2, 1, 3])
    batch = Batch.of_classes(torch.zeros(6, 1), labels, torch.arange(6))
    rows = HardBinaryCrossEntropy(smoothing, "mean")(Outputs(z), None, batch, START)
    torch.testing.assert_close(rows.mean(), Timms(smoothing=smoothing)(z, labels).double())
    soft = torch.rand(6, 5).double().softmax(1)
    mixed = Batch.of_classes(torch.zeros(6, 1), labels, torch.arange(6), soft_labels=soft)
    rows = HardBinaryCrossEntropy(0.0, "batchmean")(Outputs(z), None, mixed, START)
    torch.testing.assert_close(rows.mean(), 5 * Timms(smoothing=0.0)(z, soft))


def test_hard_binary_cross_entropy_leaves_out_unlabelled_examples(logits):
    z, labels = logits[0], torch.tensor([0, -1, 2, -1, 1, -1])
    term, known = HardBinaryCrossEntropy(0.1, "mean"), labels >= 0
    rows = term(Outputs(z), None, Batch.of_classes(torch.zeros(6, 1), labels, torch.arange(6)), START)
    part = Batch.of_classes(torch.zeros(3, 1), labels[known], torch.arange(3))
    torch.testing.assert_close(rows.mean(), term(Outputs(z[known]), None, part, START).mean())
    assert rows[~known].abs().max() == 0
