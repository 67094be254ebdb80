"""Cross-entropy with hard, smoothed and mixed labels."""

import math

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.losses.logits.cross_entropy import CrossEntropy, cross_entropy

START = Progress(0, 1, 1)


def test_mixed_labels_mix_the_losses():
    torch.manual_seed(0)
    z, share = torch.randn(6, 4, dtype=torch.float64), torch.rand(6, 1, dtype=torch.float64)
    first, second = torch.randint(4, (6,)), torch.randint(4, (6,))
    soft = share * torch.eye(4, dtype=torch.float64)[first] + (1 - share) * torch.eye(4, dtype=torch.float64)[second]
    for smoothing in (0.0, 0.1):
        a, b = (cross_entropy(z, labels, smoothing) for labels in (first, second))
        torch.testing.assert_close(cross_entropy(z, soft, smoothing), share[:, 0] * a + (1 - share[:, 0]) * b)


def test_the_term_prefers_the_soft_labels_of_a_batch():
    z, labels, index = torch.randn(3, 4), torch.tensor([0, 1, 2]), torch.arange(3)
    soft = torch.full((3, 4), 0.25)
    term = CrossEntropy(label_smoothing=0.0)
    hard = term(Outputs(z), Outputs(z), Batch.of_classes(z, labels, index), START)
    mixed = term(Outputs(z), Outputs(z), Batch.of_classes(z, labels, index, soft), START)
    torch.testing.assert_close(hard, -z.log_softmax(1).diagonal())
    torch.testing.assert_close(mixed, -z.log_softmax(1).mean(1))


def test_soft_labels_of_any_precision_fit():
    z = torch.randn(3, 4, dtype=torch.bfloat16)
    rows = cross_entropy(z, torch.full((3, 4), 0.25, dtype=torch.float64), 0.0)
    assert rows.dtype == torch.float32


def test_a_uniform_student_pays_log_c():
    assert cross_entropy(torch.zeros(2, 8), torch.tensor([0, 7]), 0.3).tolist() == pytest.approx([math.log(8)] * 2)


def test_smoothing_is_least_at_the_smoothed_label():
    target = 0.1 / 5 + 0.9 * torch.eye(5, dtype=torch.float64)[:1]
    z = target.log().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(z, torch.tensor([0]), 0.1).sum(), z)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_its_mean_over_a_batch_is_the_mean_over_the_labelled_examples(smoothing):
    torch.manual_seed(0)
    z = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, -1, 0, -1, -1, 3])
    term = CrossEntropy(label_smoothing=smoothing)
    for given, known in ((labels, [0, 2, 5]), (labels.clamp(max=-1), [])):
        soft = torch.eye(4)[given.clamp(min=0)] * (given >= 0)[:, None]
        for batch in (Batch.of_classes(z, given, given), Batch.of_classes(z, given, given, soft)):
            rows = term(Outputs(z), Outputs(z), batch, START)
            expected = cross_entropy(z[known], given[known], smoothing).mean() if known else torch.tensor(0.0)
            assert float(rows.mean().detach()) == pytest.approx(float(expected.detach()))
            (gradient,) = torch.autograd.grad(rows.mean(), z)
            assert gradient.isfinite().all() and not gradient[given < 0].any()
            assert bool(gradient[known].any()) == bool(known)
