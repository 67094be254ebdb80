"""Logit standardisation, and what it makes of the term inside."""

from dataclasses import replace

import laws_logits
import loss_references as reference
import pytest
import torch
from law_case import START, STUDENT, TEACHER, build

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.features.at import AT
from kdx.losses.logits.dkd import DKD
from kdx.losses.logits.kd import KD
from kdx.losses.wrappers.logit_standardization import LogitStandardization, standardize
from kdx.tasks.classes import image_classes


def test_mean_0_and_deviation_1():
    z = standardize(100 + 7 * torch.randn(5, 10).double())
    torch.testing.assert_close(z.mean(1), torch.zeros(5).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.std(1), torch.ones(5).double())


def test_constant_logits_become_0_without_a_gradient():
    z = torch.full((2, 7), 0.1, requires_grad=True)
    out = standardize(z)
    assert out.abs().max() == 0
    assert torch.autograd.grad(out[:, 0].sum(), z)[0].abs().max() == 0


@pytest.mark.parametrize("inside", [KD(2.0, "batchmean"), DKD(1.0, 8.0, 2.0)])
def test_shift_and_positive_scale_of_either_network_do_not_matter(inside):
    torch.manual_seed(0)
    z, v, y = torch.randn(6, 5).double(), torch.randn(6, 5).double(), torch.arange(6) % 5
    term, batch, start = LogitStandardization(inside), Batch.of_classes(y, y, y), Progress(0, 1, 1)
    expected = term(Outputs(z), Outputs(v), batch, start)
    moved = term(Outputs(30 * z - 4), Outputs(0.2 * v + 9), batch, start)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-6)


def test_speaks_for_the_term_inside():
    term = LogitStandardization(AT({"a": "b"}, 2.0))
    assert (term.student_roles(), term.teacher_roles()) == (("a",), ("b",))
    two = image_classes(2, (3, 8, 8), 1, (0.0,), (1.0,))
    with pytest.raises(ValueError, match="at least 3 classes"):
        LogitStandardization(DKD(1.0, 8.0, 2.0)).build(Shapes((2,), {}), Shapes((2,), {}), two)


@pytest.mark.parametrize("name", laws_logits.TERMS)
def test_any_term_on_logits_may_wear_it(name: str):
    torch.manual_seed(0)
    case = laws_logits.TERMS[name]
    case = replace(case, make=lambda made=case.make: LogitStandardization(made()))
    term = build(case, STUDENT, TEACHER)
    student, teacher = (reference.random_outputs(6, 5, shapes) for shapes in (STUDENT, TEACHER))
    labels = torch.arange(6) % 5
    batch = Batch.of_classes(torch.zeros(6, 1), labels, labels)
    batch = batch.with_targets(values=torch.randn(6, 5).double(), presence=torch.rand(6, 5).double())
    expected = term(student, teacher, batch, START)
    moved = [replace(o, logits=k * o.logits + b) for o, k, b in ((student, 30.0, -4.0), (teacher, 0.2, 9.0))]
    torch.testing.assert_close(term(*moved, batch, START), expected, rtol=1e-5, atol=1e-6)
    assert term.needs_teacher == term.term.needs_teacher
    assert (term.student_roles(), term.teacher_roles()) == (term.term.student_roles(), term.term.teacher_roles())
