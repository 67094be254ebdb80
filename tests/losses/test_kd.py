"""Hinton's loss: its identities, its limit, its reduction, its corners."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Linear, Progress
from kdx.losses.logits.kd import KD, kl_divergence, soft_cross_entropy
from kdx.tasks.classes import image_classes


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(8, 10, dtype=torch.float64), 3 * torch.randn(8, 10, dtype=torch.float64)


def gradient(rows: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(rows.sum(), z)[0]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_a_shift_of_either_network_changes_nothing(logits: tuple[Tensor, Tensor], temperature: float):
    z, v = logits
    expected = kl_divergence(z, v, temperature, "batchmean")
    shifts = 50 * torch.randn(8, 1, dtype=torch.float64)
    torch.testing.assert_close(kl_divergence(z + shifts, v - 2 * shifts, temperature, "batchmean"), expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_gradient_equals_that_of_soft_cross_entropy(logits: tuple[Tensor, Tensor], temperature: float):
    z, v = logits[0].requires_grad_(), logits[1]
    soft, kl = (loss(z, v, temperature, "batchmean") for loss in (soft_cross_entropy, kl_divergence))
    torch.testing.assert_close(gradient(kl, z), gradient(soft, z), rtol=1e-9, atol=1e-14)
    # and the values differ by the teacher's entropy
    p = (v / temperature).softmax(1)
    torch.testing.assert_close(soft - kl, temperature**2 * -(p * p.log()).sum(1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_is_t_times_the_difference_of_probabilities(logits: tuple[Tensor, Tensor], temperature: float):
    z, v = logits[0].requires_grad_(), logits[1]
    expected = temperature * ((z / temperature).softmax(1) - (v / temperature).softmax(1))
    torch.testing.assert_close(gradient(kl_divergence(z, v, temperature, "batchmean"), z), expected)


def test_high_temperature_is_logit_matching(logits: tuple[Tensor, Tensor]):
    z, v = ((x - x.mean(1, keepdim=True)) / 3 for x in logits)
    z = z.requires_grad_()
    expected = (z - v).detach() / 10
    actual = gradient(kl_divergence(z, v, 1e3, "batchmean"), z)
    assert (actual - expected).norm() / expected.norm() < 1e-3
    # the same holds of the values: half the squared difference over the classes
    values = kl_divergence(z, v, 1e3, "batchmean")
    torch.testing.assert_close(values, (z - v).square().sum(1) / 20, rtol=3e-3, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_the_library_with_t_squared_inside(logits: tuple[Tensor, Tensor], temperature: float):
    z, v = logits
    log_q, p = (z / temperature).log_softmax(1), (v / temperature).softmax(1)
    cells = temperature**2 * F.kl_div(log_q, p, reduction="none")
    torch.testing.assert_close(kl_divergence(z, v, temperature, "batchmean").mean(), cells.sum() / 8)
    torch.testing.assert_close(kl_divergence(z, v, temperature, "mean").mean(), cells.mean())


def test_two_classes_are_enough():
    z, v = torch.tensor([[0.0, 0.0]]), torch.tensor([[1e4, -1e4]])
    torch.testing.assert_close(kl_divergence(z, v, 1.0, "batchmean"), torch.tensor([2.0]).log())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_huge_logits_stay_finite(dtype: torch.dtype, temperature: float):
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    v = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, -1e4], [1e4, -1e4, 0.0]], dtype=dtype)
    for loss in (kl_divergence, soft_cross_entropy):
        rows = loss(z, v, temperature, "batchmean")
        assert rows.isfinite().all()
        assert gradient(rows, z).isfinite().all()
        # opposite sides are 2e4 logits apart, times T^2 / T; the same side is free
        assert rows.tolist() == pytest.approx([2e4 * temperature, 2e4 * temperature, 0.0], rel=5e-3)


def test_a_class_that_the_teacher_rules_out_adds_nothing():
    z = torch.zeros(1, 3, requires_grad=True)
    v = torch.tensor([[0.0, 0.0, -torch.inf]])
    rows = kl_divergence(z, v, 1.0, "batchmean")
    torch.testing.assert_close(rows, torch.tensor([1.5]).log())
    assert gradient(rows, z).isfinite().all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        kl_divergence(torch.zeros(1, 3), torch.zeros(1, 3), temperature, "batchmean")


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match="'batchmean' or 'mean', got 'sum'"):
        kl_divergence(torch.zeros(1, 3), torch.zeros(1, 3), 1.0, "sum")


def test_the_temperature_may_be_a_schedule(logits: tuple[Tensor, Tensor]):
    z, v = logits
    term = KD(Linear(start=1.0, end=5.0, until=10), "batchmean")
    batch = Batch.of_classes(torch.zeros(8, 1), torch.zeros(8, dtype=torch.long), torch.arange(8))
    rows = term(Outputs(z), Outputs(v), batch, Progress(step=5, steps=10, epochs=10))
    assert torch.equal(rows, kl_divergence(z, v, 3.0, "batchmean"))


def test_different_classes_are_refused():
    spec = image_classes(10, (3, 8, 8), 1, (0.0,), (1.0,))
    with pytest.raises(ValueError, match=r"the student's have shape \(10,\), the teacher's \(100,\)"):
        KD(1.0, "batchmean").build(Shapes((10,), {}), Shapes((100,), {}), spec)
