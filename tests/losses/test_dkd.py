"""DKD: the identity that it is named after, and its corners."""

import pytest
import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress, WarmUp
from kdx.losses.logits.dkd import DKD, nontarget_divergence, target_divergence
from kdx.losses.logits.kd import kl_divergence
from kdx.tasks.classes import image_classes

TEMPERATURES = [1.0, 4.0, 20.0]


@pytest.fixture
def sample() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    z, v = (3 * torch.randn(32, 10, dtype=torch.float64) for _ in range(2))
    return z, v, torch.randint(10, (32,))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_is_tckd_plus_the_rest_times_nckd(sample: tuple[Tensor, Tensor, Tensor], temperature: float):
    z, v, y = sample
    p_t = (v / temperature).softmax(1).gather(1, y[:, None])[:, 0]
    target, nontarget = (loss(z, v, y, temperature) for loss in (target_divergence, nontarget_divergence))
    whole = kl_divergence(z, v, temperature, "batchmean")
    assert ((target + (1 - p_t) * nontarget - whole).abs() <= 1e-12 * temperature**2).all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_nckd_equals_masking_the_target_by_minus_1000(sample: tuple[Tensor, Tensor, Tensor], temperature: float):
    z, v, y = sample
    mask = 1000.0 * torch.eye(10, dtype=torch.float64)[y]
    log_p, log_q = ((x / temperature - mask).log_softmax(1) for x in (v, z))
    expected = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)
    torch.testing.assert_close(nontarget_divergence(z, v, y, temperature), expected, rtol=1e-12, atol=1e-12)


def test_nckd_does_not_see_the_target(sample: tuple[Tensor, Tensor, Tensor]):
    z, v, y = sample
    moved = z + 5 * torch.eye(10, dtype=torch.float64)[y]
    torch.testing.assert_close(nontarget_divergence(moved, v, y, 4.0), nontarget_divergence(z, v, y, 4.0))
    assert (target_divergence(moved, v, y, 4.0) != target_divergence(z, v, y, 4.0)).all()


def test_tckd_does_not_see_the_order_of_the_rest(sample: tuple[Tensor, Tensor, Tensor]):
    z, v, _ = sample
    y = torch.zeros(32, dtype=torch.long)
    shuffled = torch.cat([z[:, :1], z[:, 1:].flip(1)], 1)
    torch.testing.assert_close(target_divergence(shuffled, v, y, 4.0), target_divergence(z, v, y, 4.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_huge_logits_stay_finite(dtype: torch.dtype, temperature: float):
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    v = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, -1e4], [1e4, -1e4, 0.0]], dtype=dtype)
    for labels in ([0, 0, 0], [1, 2, 1], [2, 1, 2]):
        for loss in (target_divergence, nontarget_divergence):
            rows = loss(z, v, torch.tensor(labels), temperature)
            assert rows.isfinite().all()
            assert torch.autograd.grad(rows.sum(), z)[0].isfinite().all()
            assert rows[2] == 0


def test_a_teacher_that_is_sure_still_teaches_the_rest():
    # KD sees nothing here: 1 - p_t rounds to 0. This is the case that DKD was made for
    v = torch.tensor([[200.0, 2.0, 0.0]])
    z = torch.tensor([[200.0, 0.0, 2.0]])
    y = torch.tensor([0])
    p, q = (x[:, 1:].double().softmax(1) for x in (v, z))
    expected = (p * (p / q).log()).sum(1).float()
    assert kl_divergence(z, v, 1.0, "batchmean").item() == 0.0
    torch.testing.assert_close(nontarget_divergence(z, v, y, 1.0), expected)


def test_tckd_sees_a_doubt_that_rounds_to_nothing():
    # 1 - q_t = 2 exp(-40) is lost beside 1 in float32, its logarithm is not
    z, v = torch.tensor([[40.0, 0.0, 0.0]]), torch.zeros(1, 3)
    p = 1 / 3
    expected = p * torch.tensor(p).log() + (1 - p) * (torch.tensor(1 - p).log() - torch.tensor(2.0).log() + 40)
    torch.testing.assert_close(target_divergence(z, v, torch.tensor([0]), 1.0), expected[None])


@pytest.mark.parametrize("classes", [1, 2])
def test_two_classes_are_refused(classes: int):
    spec = image_classes(classes, (3, 8, 8), 1, (0.0,), (1.0,))
    shapes = Shapes((classes,), {})
    with pytest.raises(ValueError, match=f"at least 3 classes; this data set has {classes}"):
        DKD(1.0, 8.0, 4.0).build(shapes, shapes, spec)


def test_mixing_is_seen_through_the_dominant_class(sample: tuple[Tensor, Tensor, Tensor]):
    z, v, y = sample
    soft = torch.full((32, 10), 0.1)
    term, start = DKD(1.0, 8.0, 4.0), Progress(0, 1, 1)
    plain, mixed = (Batch.of_classes(z, y, torch.arange(32), labels) for labels in (None, soft))
    assert torch.equal(term(Outputs(z), Outputs(v), mixed, start), term(Outputs(z), Outputs(v), plain, start))


def test_each_weight_may_be_a_schedule(sample: tuple[Tensor, Tensor, Tensor]):
    z, v, y = sample
    term = DKD(WarmUp(to=1.0, epochs=2), WarmUp(to=8.0, epochs=4), 4.0)
    rows = term(Outputs(z), Outputs(v), Batch.of_classes(z, y, torch.arange(32)), Progress(0, 10, 10))
    expected = 0.5 * target_divergence(z, v, y, 4.0) + 2.0 * nontarget_divergence(z, v, y, 4.0)
    torch.testing.assert_close(rows, expected)
