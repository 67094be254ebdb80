"""Terms on logits where numbers end: two classes, certainty, logits of 1e4, one example, a class nobody has."""

import laws_logits
import loss_references as reference
import pytest
import torch
from law_case import START, STUDENT, TEACHER, Case, build
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.losses.base.term import Term
from kdx.losses.logits.ofa import OFAStages
from kdx.tasks.classes import image_classes

# what cannot be with two classes, where the classes beside the label are one
NEEDS_THREE = {"dkd", "tckd", "nckd", "nkd", "each of one", "dist", "lskd", "dkd ls", "mlkd ls"}
TWO = image_classes(2, (3, 8, 8), 100, (0.0,) * 3, (1.0,) * 3)
HUGE = 1e4


@pytest.fixture(params=laws_logits.TERMS)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return laws_logits.TERMS[request.param]


def data(size: int, classes: int, dtype: torch.dtype = torch.float32) -> tuple[Outputs, Outputs, Batch]:
    outputs = (reference.random_outputs(size, classes, shapes, dtype) for shapes in (STUDENT, TEACHER))
    labels = torch.arange(size) % classes
    drawn = torch.Generator().manual_seed(size)
    values, presence = (make(size, classes, generator=drawn).to(dtype) for make in (torch.randn, torch.rand))
    batch = Batch.of_classes(torch.zeros(size, 1), labels, torch.arange(size))
    return *outputs, batch.with_targets(values=values, presence=presence)


def with_logits(outputs: Outputs, logits: Tensor) -> Outputs:
    return Outputs(logits, outputs.features)


def value_and_gradient(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    leaves = [student.logits, *student.features.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    rows = term(student, teacher, batch, START)
    gradients = torch.autograd.grad(rows.mean(), leaves, allow_unused=True)
    return rows.detach(), torch.cat([g.flatten().float() for g in gradients if g is not None])


def test_two_classes_work_or_are_refused(case: Case, request: pytest.FixtureRequest):
    if request.node.callspec.params["case"] in NEEDS_THREE:
        with pytest.raises(ValueError, match="at least 3 classes; this data set has 2"):
            build(case, STUDENT, TEACHER, torch.float32, TWO)
        return
    term = build(case, STUDENT, TEACHER, torch.float32, TWO)
    rows, gradient = value_and_gradient(term, *data(6, 2))
    assert rows.isfinite().all() and gradient.isfinite().all()


def one_hot(size: int, scale: float, shift: int = 0) -> Tensor:
    return scale * torch.eye(5)[(torch.arange(size) + shift) % 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [0, 1], ids=["right", "wrong"])
@pytest.mark.parametrize("scale", [100.0, HUGE])
def test_a_teacher_that_is_certain(case: Case, scale: float, shift: int, dtype: torch.dtype):
    term = build(case, STUDENT, TEACHER, torch.float32)
    student, teacher, batch = data(6, 5)
    teacher = with_logits(teacher, one_hot(6, scale, shift).to(dtype))
    for logits in (student.logits, torch.zeros(6, 5), one_hot(6, -scale), one_hot(6, scale, 2)):
        now = with_logits(student, logits.clone().to(dtype))
        rows, gradient = value_and_gradient(term, now, teacher, batch)
        assert rows.dtype == torch.float32
        assert rows.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 6])
def test_logits_of_ten_thousand(case: Case, size: int, dtype: torch.dtype):
    term = build(case, STUDENT, TEACHER, torch.float32)
    for _ in range(4):
        student, teacher, batch = data(size, 5)
        mine, theirs = (with_logits(o, (HUGE * o.logits.sign()).to(dtype)) for o in (student, teacher))
        rows, gradient = value_and_gradient(term, mine, theirs, batch)
        assert rows.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("scale", [1.0, HUGE])
def test_a_student_that_is_its_teacher(case: Case, scale: float):
    if case.at_equal != "zero":
        pytest.skip("no optimum of 0 there")
    term = build(case, STUDENT, STUDENT, torch.float32)
    student, _, batch = data(6, 5)
    student = with_logits(student, scale * student.logits)
    teacher = Outputs(student.logits.clone(), {role: f.clone() for role, f in student.features.items()})
    rows, gradient = value_and_gradient(term, student, teacher, batch)
    # exactly, but for correlations, whose 1 is rounded
    assert rows.abs().max() < 1e-4
    assert gradient.abs().max() < 1e-3


def test_a_batch_of_one(case: Case):
    term = build(case, STUDENT, TEACHER, torch.float32)
    rows, gradient = value_and_gradient(term, *data(1, 5))
    assert rows.shape == (1,)
    assert rows.isfinite().all() and gradient.isfinite().all()


def test_classes_that_nobody_in_the_batch_has(case: Case):
    term = build(case, STUDENT, TEACHER, torch.float32)
    student, teacher, batch = data(6, 5)
    batch = batch.with_targets(labels=torch.zeros(6, dtype=torch.long))
    # and that neither network ever believes in
    gone = torch.tensor([0.0, 0.0, 0.0, -HUGE, -HUGE])
    for outputs in ((student, teacher), (with_logits(o, o.logits.detach() + gone) for o in (student, teacher))):
        rows, gradient = value_and_gradient(term, *outputs, batch)
        assert rows.isfinite().all() and gradient.isfinite().all()


def test_terms_that_mix_samples_do_so_on_purpose(case: Case):
    term = build(case, STUDENT, TEACHER)
    if any(isinstance(t, OFAStages) for t in term.modules()):
        pytest.skip("batch norms mix samples")
    student, teacher, batch = data(6, 5, torch.float64)
    whole = term(student, teacher, batch, START)
    parts = [Outputs(o.logits[:1], {role: f[:1] for role, f in o.features.items()}) for o in (student, teacher)]
    alone = term(*parts, batch.chunk(len(batch))[0], START)
    mixing = {"DIST", "LeastConfident", "SampleAlignment", "ClassAlignment"}
    same = torch.allclose(alone, whole[:1], rtol=1e-9, atol=1e-12)
    assert same or any(type(t).__name__ in mixing for t in term.modules())
