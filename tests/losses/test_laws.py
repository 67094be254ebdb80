"""The laws that every term obeys. A new term joins by one line of `TERMS`."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import loss_references as reference
import pytest
import torch
from torch import Tensor

from kdx.core.schedule import Progress
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.at import AT
from kdx.losses.base import Term
from kdx.losses.cross_entropy import CrossEntropy
from kdx.losses.dist import DIST
from kdx.losses.dkd import DKD
from kdx.losses.fitnet import FitNet
from kdx.losses.kd import KD, SoftCrossEntropy
from kdx.losses.logit_mse import LogitMSE
from kdx.losses.logit_standardization import LogitStandardization
from kdx.losses.nkd import NKD
from kdx.losses.nst import NST
from kdx.losses.pkt import PKT
from kdx.losses.rkd import RKDAngle, RKDDistance
from kdx.losses.sp import SP
from kdx.losses.vid import VID


@dataclass(frozen=True)
class Case:
    """A term, its loop, and what the maths says of a student that equals its teacher.

    "zero": value and gradient are 0. "minimal": the gradient is 0. "value": the value is 0 (a constant inside
    a logarithm moves the minimum a little). "": nothing.
    """

    make: Callable[[], Term]
    loop: reference.Reference
    at_equal: str


STAGES = ["stage1", "stage2", "stage3"]
TERMS = {
    "ce": Case(lambda: CrossEntropy(0.0), reference.cross_entropy(0.0), ""),
    "ce smoothed": Case(lambda: CrossEntropy(0.1), reference.cross_entropy(0.1), ""),
    "kd": Case(lambda: KD(4.0, "batchmean"), reference.kd(4.0), "zero"),
    "kd mean": Case(lambda: KD(2.0, "mean"), reference.kd(2.0, divisor=5), "zero"),
    "soft ce": Case(lambda: SoftCrossEntropy(3.0, "batchmean"), reference.soft_cross_entropy(3.0), "minimal"),
    "dkd": Case(lambda: DKD(1.0, 8.0, 4.0), reference.dkd(1.0, 8.0, 4.0), "zero"),
    "tckd": Case(lambda: DKD(1.0, 0.0, 1.0), reference.dkd(1.0, 0.0, 1.0), "zero"),
    "nckd": Case(lambda: DKD(0.0, 1.0, 1.0), reference.dkd(0.0, 1.0, 1.0), "zero"),
    "logit mse": Case(lambda: LogitMSE("half_sum"), reference.logit_mse(1 / 2), "zero"),
    "logit mse mean": Case(lambda: LogitMSE("mean"), reference.logit_mse(1 / 5), "zero"),
    "fitnet half": Case(lambda: FitNet("stage2", "stage2"), reference.fitnet("stage2"), ""),
    "fitnet equal": Case(lambda: FitNet("stage3", "stage3"), reference.fitnet("stage3"), ""),
    "fitnet vector": Case(lambda: FitNet("pooled", "pooled"), reference.fitnet("pooled"), ""),
    "at": Case(lambda: AT(STAGES, 2.0), reference.at(STAGES, 2.0), "zero"),
    "at power": Case(lambda: AT(["stage2"], 1.5), reference.at(["stage2"], 1.5), "zero"),
    "sp": Case(lambda: SP("stage3", "stage3"), reference.over_features("stage3", reference.sp), "zero"),
    "rkd distance": Case(
        lambda: RKDDistance("pooled", "pooled"), reference.over_features("pooled", reference.rkd_distance), "zero"
    ),
    "rkd angle": Case(
        lambda: RKDAngle("pooled", "pooled"), reference.over_features("pooled", reference.rkd_angle), "zero"
    ),
    "dist": Case(lambda: DIST(2.0, 1.0, 4.0), reference.dist(2.0, 1.0, 4.0), "zero"),
    "lskd": Case(lambda: LogitStandardization(KD(2.0, "batchmean")), reference.standardized_kd(2.0), "zero"),
    "nkd": Case(lambda: NKD(1.5, 2.0), reference.nkd(1.5, 2.0), ""),
    "pkt": Case(lambda: PKT("pooled", "pooled"), reference.over_features("pooled", reference.pkt), "value"),
    "nst": Case(lambda: NST(STAGES), reference.nst(STAGES), "zero"),
    "vid": Case(lambda: VID(STAGES, 5.0), reference.vid(STAGES), ""),
}

CLASSES = 5
STUDENT = {"stage1": (3, 4, 4), "stage2": (4, 4, 4), "stage3": (4, 2, 2), "pooled": (4,)}
TEACHER = {"stage1": (5, 4, 4), "stage2": (6, 2, 2), "stage3": (6, 2, 2), "pooled": (6,)}
SPEC = DataSpec(CLASSES, (3, 8, 8), 100, (0.0,) * 3, (1.0,) * 3)
START = Progress(step=0, steps=10, epochs=10)


@pytest.fixture(params=TERMS)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return TERMS[request.param]


def build(case: Case, student: dict[str, tuple[int, ...]], teacher: dict[str, tuple[int, ...]]) -> Term:
    term = case.make()
    term.build(Shapes((CLASSES,), student), Shapes((CLASSES,), teacher), SPEC)
    return term.double()


def pair(size: int = 6) -> tuple[Outputs, Outputs, Batch]:
    labels = torch.arange(size) % CLASSES
    outputs = (reference.random_outputs(size, CLASSES, shapes) for shapes in (STUDENT, TEACHER))
    return *outputs, Batch(torch.zeros(size, 1), labels, torch.arange(size))


def mapped(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    return Outputs(change(outputs.logits), {role: change(f) for role, f in outputs.features.items()})


def leaves(outputs: Outputs) -> Outputs:
    return mapped(outputs, lambda t: t.detach().clone().requires_grad_())


def tensors(outputs: Outputs) -> list[Tensor]:
    return [outputs.logits, *outputs.features.values()]


def gradients(outputs: Outputs) -> list[Tensor]:
    return [t.grad for t in tensors(outputs) if t.grad is not None]


def is_trained(term: Term) -> bool:
    return any(True for _ in term.parameters())


def test_one_value_an_example(case: Case):
    student, teacher, batch = pair()
    rows = build(case, STUDENT, TEACHER)(student, teacher, batch, START)
    assert rows.shape == (6,)
    assert rows.dtype == torch.float64


def test_equals_the_loop(case: Case):
    student, teacher, batch = pair()
    term = build(case, STUDENT, TEACHER)
    rows = term(student, teacher, batch, START).tolist()
    assert rows == pytest.approx(case.loop(term, student, teacher, batch), rel=1e-6)


def test_gradient_equals_finite_differences(case: Case):
    student, teacher, batch = pair(4)
    term = build(case, STUDENT, TEACHER)

    def rows(*values: Tensor) -> Tensor:
        return term(Outputs(values[0], dict(zip(student.features, values[1:], strict=True))), teacher, batch, START)

    assert torch.autograd.gradcheck(rows, tuple(tensors(leaves(student))))


def test_gradient_reaches_the_student_alone(case: Case):
    student, teacher, batch = pair()
    student, teacher, term = leaves(student), leaves(teacher), build(case, STUDENT, TEACHER)
    term(student, teacher, batch, START).mean().backward()
    assert not gradients(teacher)
    assert sum(g.abs().sum().item() for g in gradients(student)) > 0
    assert all(p.grad is not None for p in term.parameters())


def test_declares_what_it_reads(case: Case):
    student, teacher, batch = pair()
    term = build(case, STUDENT, TEACHER)
    expected = term(student, teacher, batch, START)
    mine = Outputs(student.logits, {role: student.features[role] for role in term.student_roles()})
    theirs = Outputs(teacher.logits, {role: teacher.features[role] for role in term.teacher_roles()})
    assert torch.equal(term(mine, theirs, batch, START), expected)


def test_refuses_a_role_that_is_missing(case: Case):
    term = case.make()
    if not term.student_roles():
        pytest.skip("reads no features")
    with pytest.raises(ValueError, match="the student has no feature with role"):
        term.build(Shapes((CLASSES,), {}), Shapes((CLASSES,), TEACHER), SPEC)
    with pytest.raises(ValueError, match="the teacher has no feature with role"):
        term.build(Shapes((CLASSES,), STUDENT), Shapes((CLASSES,), {}), SPEC)


def test_refuses_to_do_without_a_teacher(case: Case):
    term = case.make()
    if not term.needs_teacher:
        return term.build(Shapes((CLASSES,), STUDENT), None, SPEC)
    with pytest.raises(ValueError, match="there is no teacher"):
        term.build(Shapes((CLASSES,), STUDENT), None, SPEC)


def test_permuting_the_batch_permutes_the_result(case: Case):
    student, teacher, batch = pair()
    term, order = build(case, STUDENT, TEACHER), torch.tensor([3, 1, 5, 0, 4, 2])
    expected = term(student, teacher, batch, START)[order]
    shuffled = Batch(batch.inputs[order], batch.labels[order], batch.index[order])
    rows = term(mapped(student, lambda t: t[order]), mapped(teacher, lambda t: t[order]), shuffled, START)
    torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-12)


def test_a_student_that_equals_its_teacher(case: Case):
    if not case.at_equal:
        pytest.skip("no optimum there")
    student, _, batch = pair()
    student, term = leaves(student), build(case, STUDENT, STUDENT)
    rows = term(student, student, batch, START)
    rows.sum().backward()
    if case.at_equal != "value":
        assert all(g.abs().max() < 1e-12 for g in gradients(student))
    if case.at_equal == "minimal":
        other, _, _ = pair()
        assert (term(other, student, batch, START) > rows).all()
    else:
        assert rows.abs().max() < 1e-12


def extreme(t: Tensor) -> Tensor:
    return 100.0 * t.sign()


def one_hot(t: Tensor) -> Tensor:
    return 100.0 * (t == t.flatten(1).amax(1).view(-1, *[1] * (t.ndim - 1)))


def zero(t: Tensor) -> Tensor:
    return torch.zeros_like(t)


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_finite(case: Case, size: int, dtype: torch.dtype):
    term = build(case, STUDENT, TEACHER).float()
    for mine, theirs in itertools.product([extreme, one_hot, zero, Tensor.clone], [extreme, one_hot, zero]):
        student, teacher, batch = pair(size)
        student = leaves(mapped(student, lambda t, mine=mine: mine(t).to(dtype)))
        teacher = mapped(teacher, lambda t, theirs=theirs: theirs(t).to(dtype))
        # a trained part is given what methods give it: full precision
        rows = term(student.float() if is_trained(term) else student, teacher, batch, START)
        rows.mean().backward()
        assert rows.dtype == torch.float32
        assert rows.isfinite().all()
        assert gradients(student)
        # dead features far from the teacher's must not blow up either
        assert all(g.isfinite().all() and g.abs().max() < 1e6 for g in gradients(student))


def test_autocast_does_not_touch_the_value(case: Case):
    student, teacher, batch = (mapped(o, Tensor.float) if isinstance(o, Outputs) else o for o in pair())
    term = build(case, STUDENT, TEACHER).float()
    if is_trained(term):
        pytest.skip("an adapter is a network, and networks run under autocast")
    expected = term(student, teacher, batch, START)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(term(student, teacher, batch, START), expected)
