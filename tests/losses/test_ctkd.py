"""CTKD: a temperature that climbs the loss."""

import math

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Cosine, Progress
from kdx.losses.logits.binary import BinaryKL
from kdx.losses.logits.ctkd import LearnedTemperature, reversed_gradient
from kdx.losses.logits.dist import DIST
from kdx.losses.logits.divergences import JensenShannon
from kdx.losses.logits.dkd import DKD
from kdx.losses.logits.kd import KD, kl_divergence
from kdx.losses.logits.mlkd import InstanceAlignment
from kdx.losses.logits.nkd import NKD
from kdx.losses.logits.ofa import OFA
from kdx.losses.logits.wsld import WSLD
from kdx.losses.wrappers.logit_standardization import LogitStandardization

START, LATER = Progress(0, 100, 100), Progress(5, 100, 100)


def batch(size: int = 8) -> tuple[Outputs, Outputs, Batch]:
    torch.manual_seed(0)
    z, v, y = 3 * torch.randn(size, 5).double(), 3 * torch.randn(size, 5).double(), torch.arange(size) % 5
    return Outputs(z), Outputs(v), Batch.of_classes(z, y, y)


def test_the_value_is_exact_and_the_gradient_turned_round():
    x = torch.tensor(0.3, requires_grad=True)
    y = reversed_gradient(x, 0.7)
    assert torch.equal(y, x)
    assert torch.autograd.grad(5 * y, x)[0].item() == pytest.approx(-3.5)


def test_begins_where_the_authors_do_and_stays_in_its_range():
    temperature = LearnedTemperature(1.0, 20.0, 1.0, 1.0)
    assert temperature(START).item() == pytest.approx(1 + 20 / (1 + math.exp(-1)))
    for raw, expected in ((-50.0, 1.0), (50.0, 21.0), (0.0, 11.0)):
        temperature.raw.data.fill_(raw)
        assert temperature(START).item() == pytest.approx(expected)


def test_is_a_parameter_of_the_term_that_holds_it():
    term = LogitStandardization(KD(LearnedTemperature(1.0, 20.0, 1.0, 1.0), "batchmean"))
    assert [name for name, _ in term.named_parameters()] == ["term.temperature.raw"]


def test_the_gradient_is_minus_the_losses_own_times_the_strength():
    student, teacher, data = batch()
    temperature = LearnedTemperature(1.0, 20.0, 1.0, Cosine(start=0.0, end=1.0, until=10)).double()
    term = KD(temperature, "batchmean")
    raw = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    rows = kl_divergence(student.logits, teacher.logits, 1 + 20 * raw.sigmoid(), "batchmean")
    (plain,) = torch.autograd.grad(rows.mean(), raw)
    for progress, strength in ((START, 0.0), (LATER, 0.5), (Progress(50, 100, 100), 1.0)):
        (gradient,) = torch.autograd.grad(term(student, teacher, data, progress).mean(), temperature.raw)
        torch.testing.assert_close(gradient, -strength * plain)


MAKE = {
    "kd": lambda t: KD(t, "batchmean"),
    "dkd": lambda t: DKD(1.0, 2.0, t),
    "nkd": lambda t: NKD(1.5, t),
    "dist": lambda t: DIST(1.0, 1.0, t),
    "js": JensenShannon,
    "wsld": WSLD,
    "binary kl": lambda t: BinaryKL(t, "mean"),
    "ofa": lambda t: OFA(1.5, t),
    "mlkd": lambda t: InstanceAlignment([4.0, t]),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_a_step_down_the_gradient_raises_the_loss_of_any_term(make):
    student, teacher, data = batch()
    term = make(LearnedTemperature(1.0, 20.0, 1.0, 1.0)).double()
    before = term(student, teacher, data, START).mean()
    before.backward()
    torch.optim.SGD(term.parameters(), lr=1e-4).step()
    assert term(student, teacher, data, START).mean() > before
