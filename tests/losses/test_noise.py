"""Noisy logits: the moments of the noise, what it leaves alone, and where its draws come from."""

import itertools
from dataclasses import replace
from typing import Any

import laws_logits
import loss_references as reference
import pytest
import torch
from law_case import CLASSES, SPEC, START, STUDENT, TEACHER, build

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Between, Linear, Progress
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import KD
from kdx.losses.logits.logit_mse import LogitMSE, logit_mse
from kdx.losses.wrappers.noise import NoisyLogits, perturbed

MODES: tuple[Any, ...] = ("multiplicative", "additive")
GRANULARITIES: tuple[Any, ...] = ("logit", "sample")
SELECTS: tuple[Any, ...] = ("sample", "batch")
EVERY = list(itertools.product(MODES, GRANULARITIES, SELECTS))
V = torch.tensor([[3.0, -1.0, 0.5, 0.0, -4.0]]).double()


def pair(size: int = 6) -> tuple[Outputs, Outputs, Batch]:
    torch.manual_seed(1)
    student, teacher = (reference.random_outputs(size, CLASSES, shapes) for shapes in (STUDENT, TEACHER))
    labels = torch.arange(size) % CLASSES
    batch = Batch.of_classes(labels, labels, labels)
    values, presence = torch.randn(size, CLASSES).double(), torch.rand(size, CLASSES).double()
    return student, teacher, batch.with_targets(values=values, presence=presence)


@pytest.mark.parametrize(("mode", "granularity", "select"), EVERY)
def test_mean_and_variance_of_each_logit(mode: Any, granularity: Any, select: Any):
    torch.manual_seed(0)
    fraction, sigma = 0.3, 0.7
    if select == "batch":
        drawn = torch.cat([perturbed(V, mode, granularity, select, fraction, sigma) for _ in range(20000)])
    else:
        drawn = perturbed(V.expand(40000, -1), mode, granularity, select, fraction, sigma)
    variance = fraction * sigma**2 * (V[0] ** 2 if mode == "multiplicative" else torch.ones(5))
    error = (variance / len(drawn)).sqrt()
    assert ((drawn.mean(0) - V[0]).abs() <= 4 * error).all()
    torch.testing.assert_close(drawn.var(0), variance.double(), rtol=0.08, atol=1e-12)
    touched = (drawn != V).any(1).double().mean().item()
    assert touched == pytest.approx(fraction, abs=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_has_one_draw_or_one_for_each_logit(mode: Any):
    torch.manual_seed(0)
    whole, single = (perturbed(V.expand(50, -1), mode, g, "sample", 1.0, 0.5) for g in ("sample", "logit"))
    for drawn, one in ((whole, True), (single, False)):
        xi = (drawn / V - 1)[:, [0, 1, 2, 4]] if mode == "multiplicative" else drawn - V
        spread = xi.std(1)
        assert (spread < 1e-9).all() if one else (spread > 1e-3).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_samples_are_selected_by_themselves_or_together(granularity: Any):
    torch.manual_seed(0)
    rows = V.expand(40, -1)
    together = [(perturbed(rows, "additive", granularity, "batch", 0.5, 1.0) != rows).any(1) for _ in range(30)]
    assert all(m.all() or not m.any() for m in together)
    assert len({bool(m.any()) for m in together}) == 2
    alone = (perturbed(rows, "additive", granularity, "sample", 0.5, 1.0) != rows).any(1)
    assert alone.any() and not alone.all()


@pytest.mark.parametrize("network", ["teacher", "student"])
@pytest.mark.parametrize(("fraction", "sigma"), [(0.0, 0.9), (0.5, 0.0)])
def test_without_noise_it_is_the_plain_term_to_the_bit_and_draws_nothing(network: Any, fraction: float, sigma: float):
    student, teacher, batch = pair()
    term = NoisyLogits(LogitMSE("half_sum"), network, "multiplicative", "logit", "sample", fraction, sigma)
    before = torch.get_rng_state()
    rows = term(student, teacher, batch, START)
    assert torch.equal(rows, logit_mse(student.logits, teacher.logits, "half_sum"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_noisy_teacher_is_regression_plus_a_constant_on_average():
    student, teacher, batch = pair(4)
    repeat = 20000
    student, teacher = (Outputs(o.logits.repeat(repeat, 1)) for o in (student, teacher))
    labels = batch.labels.repeat(repeat)
    torch.manual_seed(0)
    term = NoisyLogits(LogitMSE("half_sum"), "teacher", "multiplicative", "logit", "sample", 0.5, 0.6)
    found = term(student, teacher, Batch.of_classes(labels, labels, labels), START).view(repeat, 4).mean(0)
    v = teacher.logits[:4]
    expected = logit_mse(student.logits[:4], v, "half_sum") + 0.5 * 0.5 * 0.36 * v.square().sum(1)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0)


def test_a_noisy_student_is_regularised_by_the_size_of_its_own_logits():
    student, teacher, batch = pair(4)
    repeat = 20000
    z = student.logits.clone().requires_grad_()
    labels = batch.labels.repeat(repeat)
    torch.manual_seed(0)
    term = NoisyLogits(LogitMSE("half_sum"), "student", "multiplicative", "logit", "sample", 0.5, 0.6)
    noisy = term(
        Outputs(z.repeat(repeat, 1)),
        Outputs(teacher.logits.repeat(repeat, 1)),
        Batch.of_classes(labels, labels, labels),
        START,
    )
    (found,) = torch.autograd.grad(noisy.view(repeat, 4).mean(0).sum(), z)
    # of |z - v|^2 / 2 + fraction sigma^2 |z|^2 / 2
    torch.testing.assert_close(found, (z - teacher.logits + 0.18 * z).detach(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_only_one_network_is_perturbed(network: Any):
    seen = {}

    class Look(LogitMSE):
        def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> torch.Tensor:
            seen.update(student=student.logits, teacher=teacher.logits)
            return super().forward(student, teacher, batch, progress)

    student, teacher, batch = pair()
    NoisyLogits(Look("mean"), network, "additive", "logit", "sample", 1.0, 1.0)(student, teacher, batch, START)
    moved = {"student": not torch.equal(seen["student"], student.logits)}
    moved["teacher"] = not torch.equal(seen["teacher"], teacher.logits)
    assert moved == {"student": network == "student", "teacher": network == "teacher"}


def test_the_same_stream_gives_the_same_noise():
    student, teacher, batch = pair()
    term = NoisyLogits(KD(4.0, "batchmean"), "teacher", "multiplicative", "logit", "sample", 0.5, 0.9)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = (term(student, teacher, batch, START) for _ in range(2))
    torch.set_rng_state(state)
    assert torch.equal(term(student, teacher, batch, START), first)
    assert not torch.equal(first, second)


def test_fraction_and_sigma_may_be_schedules():
    student, teacher, batch = pair()

    def rows(fraction: Any, sigma: Any, step: int) -> torch.Tensor:
        torch.manual_seed(0)
        term = NoisyLogits(LogitMSE("mean"), "teacher", "additive", "logit", "sample", fraction, sigma)
        return term(student, teacher, batch, Progress(step, 10, 10))

    assert torch.equal(rows(0.8, Linear(start=0.0, end=1.0, until=10), 5), rows(0.8, 0.5, 0))
    assert torch.equal(rows(Between(value=0.8, since=5), 1.0, 5), rows(0.8, 1.0, 0))
    assert torch.equal(rows(Between(value=0.8, since=5), 1.0, 4), rows(0.0, 1.0, 0))


def test_noise_on_a_teacher_that_nobody_reads_is_refused():
    shapes = Shapes((CLASSES,), {})
    term = NoisyLogits(CrossEntropy(0.0), "teacher", "additive", "logit", "sample", 0.5, 0.9)
    with pytest.raises(ValueError, match="CrossEntropy, which does not read it"):
        term.build(shapes, None, SPEC)
    NoisyLogits(CrossEntropy(0.0), "student", "additive", "logit", "sample", 0.5, 0.9).build(shapes, None, SPEC)


@pytest.mark.parametrize("name", laws_logits.TERMS)
def test_any_term_on_logits_may_wear_it(name: str):
    student, teacher, batch = pair()
    case = laws_logits.TERMS[name]
    inside = case.make()
    for network in ("teacher", "student") if inside.needs_teacher else ("student",):

        def noisy(made: Any = case.make, network: Any = network) -> NoisyLogits:
            return NoisyLogits(made(), network, "multiplicative", "logit", "sample", 0.5, 0.5)

        term = build(replace(case, make=noisy), STUDENT, TEACHER)
        assert (term.student_roles(), term.teacher_roles()) == (inside.student_roles(), inside.teacher_roles())
        rows = term(student, teacher, batch, START)
        assert rows.shape == (6,) and rows.isfinite().all()
