"""The laws that every term obeys. A new term joins by a line in `laws_logits`, `laws_features` or `laws_texts`."""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import laws_composed
import laws_features
import laws_logits
import laws_texts
import pytest
import torch
from law_case import CLASSES, START, Case, Headed, build, pair
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.tree import take
from kdx.losses.base.term import Term

FULL = "decorate the loss's function with @full_precision of kdx/losses/base/numerics.py"
TERMS = {**laws_logits.TERMS, **laws_features.TERMS, **laws_composed.TERMS, **laws_texts.TERMS}


@pytest.fixture(params=TERMS)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return TERMS[request.param]


def some(batch: Batch, rows: Tensor | slice) -> Batch:
    """Some examples of a batch."""
    return Batch(take(batch.inputs, rows), {k: take(t, rows) for k, t in batch.targets.items()}, batch.index[rows])


def mapped(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    return Outputs(change(outputs.logits), {role: change(f) for role, f in outputs.features.items()})


def leaves(outputs: Outputs) -> Outputs:
    return mapped(outputs, lambda t: t.detach().clone().requires_grad_())


def tensors(outputs: Outputs) -> list[Tensor]:
    return [outputs.logits, *outputs.features.values()]


def gradients(outputs: Outputs) -> list[Tensor]:
    return [t.grad for t in tensors(outputs) if t.grad is not None]


@contextmanager
def said(match: str, remedy: str) -> Iterator[None]:
    """`pytest.raises(ValueError, match=match)` that says what to do where nothing is raised."""
    try:
        yield
    except ValueError as error:
        assert re.search(match, str(error)), error
    else:
        pytest.fail(f"no ValueError that says {match!r}: {remedy}")


def is_trained(term: Term) -> bool:
    return any(True for _ in term.parameters())


def test_one_value_an_example(case: Case):
    student, teacher, batch = pair(case)
    rows = build(case, case.student, case.teacher)(student, teacher, batch, START)
    assert rows.shape == (6,)
    assert rows.dtype == torch.float64


def test_equals_the_loop(case: Case):
    student, teacher, batch = pair(case)
    term = build(case, case.student, case.teacher)
    rows = term(student, teacher, batch, START).tolist()
    assert rows == pytest.approx(case.loop(term, student, teacher, batch), rel=1e-6)


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["projected", "whole"])
def test_gradient_equals_finite_differences(case: Case, fast: bool):
    """The whole Jacobian takes minutes for all terms; a random projection of it shows any error all the same."""
    if not case.differentiable:
        pytest.skip("holds a part of its value constant")
    student, teacher, batch = pair(case, 4)
    term = build(case, case.student, case.teacher)

    def rows(*values: Tensor) -> Tensor:
        return term(Outputs(values[0], dict(zip(student.features, values[1:], strict=True))), teacher, batch, START)

    assert torch.autograd.gradcheck(rows, tuple(tensors(leaves(student))), fast_mode=fast)


def test_gradient_reaches_the_student_alone(case: Case):
    student, teacher, batch = pair(case)
    student, teacher, term = leaves(student), leaves(teacher), build(case, case.student, case.teacher)
    term(student, teacher, batch, START).mean().backward()
    assert not gradients(teacher)
    assert sum(g.abs().sum().item() for g in gradients(student)) > 0
    assert all(p.grad is not None for p in term.parameters())


def test_declares_what_it_reads(case: Case):
    student, teacher, batch = pair(case)
    term = build(case, case.student, case.teacher)
    expected = term(student, teacher, batch, START)
    mine = Outputs(student.logits, {role: student.features[role] for role in term.student_roles()})
    theirs = Outputs(teacher.logits, {role: teacher.features[role] for role in term.teacher_roles()})
    assert torch.equal(term(mine, theirs, batch, START), expected)


def test_refuses_logits_of_tokens(case: Case):
    """KD on [B, L, V] would normalise over the tokens."""
    term = case.make()
    if not term.reads_logits:
        pytest.skip("reads no logits")
    tokens = Shapes((7, CLASSES), case.student), Shapes((7, CLASSES), case.teacher)
    term.attach(*(Headed(shapes["pooled"][0], CLASSES, torch.float64) for shapes in (case.student, case.teacher)))
    with pytest.raises(ValueError, match=r"student's logits are \[B, 7, 5\].*OverRows"):
        term.build(*tokens, case.spec)
    student, teacher, batch = pair(case)
    term = build(case, case.student, case.teacher)
    wrong = Outputs(student.logits[:, None].expand(-1, 7, -1), student.features)
    with pytest.raises(ValueError, match=r"student's logits are \[6, 7, 5\].*OverRows"):
        term(wrong, teacher, batch, START)
    if term.needs_teacher:
        with pytest.raises(ValueError, match=r"teacher's logits are \[6, 7, 5\].*OverRows"):
            term(student, Outputs(wrong.logits, teacher.features), batch, START)


def test_a_term_that_reads_no_logits_does_not_change_with_them(case: Case):
    student, teacher, batch = pair(case)
    term = build(case, case.student, case.teacher)
    if term.reads_logits:
        pytest.skip("reads logits")
    tokens = torch.randn(6, 7, CLASSES)
    rows = term(Outputs(tokens, student.features), Outputs(tokens, teacher.features), batch, START)
    assert torch.equal(rows, term(student, teacher, batch, START))


def test_refuses_a_role_that_is_missing(case: Case):
    term = case.make()
    if not term.student_roles():
        pytest.skip("reads no features")
    with pytest.raises(ValueError, match="the student has no feature with role"):
        term.build(Shapes((CLASSES,), {}), Shapes((CLASSES,), case.teacher), case.spec)
    with pytest.raises(ValueError, match="the teacher has no feature with role"):
        term.build(Shapes((CLASSES,), case.student), Shapes((CLASSES,), {}), case.spec)


def test_refuses_to_do_without_a_teacher(case: Case):
    term = case.make()
    if not term.needs_teacher:
        return term.build(Shapes((CLASSES,), case.student), None, case.spec)
    with said(
        "there is no teacher", "a term on logits calls require_same_logits of kdx/losses/base/checks.py in build"
    ):
        term.build(Shapes((CLASSES,), case.student), None, case.spec)


def test_permuting_the_batch_permutes_the_result(case: Case):
    if not case.permutes:
        pytest.skip("goes by the order of the batch")
    student, teacher, batch = pair(case)
    term, order = build(case, case.student, case.teacher), torch.tensor([3, 1, 5, 0, 4, 2])
    expected = term(student, teacher, batch, START)[order]
    rows = term(mapped(student, lambda t: t[order]), mapped(teacher, lambda t: t[order]), some(batch, order), START)
    torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-12)


def test_says_whether_a_part_of_the_batch_is_enough(case: Case):
    student, teacher, batch = pair(case)
    term = build(
        case, case.student, case.teacher
    ).eval()  # batch norms relate examples, and see the whole batch all the same

    def rows(part: slice) -> Tensor:
        torch.manual_seed(0)
        given, examples = (mapped(outputs, lambda t: t[part]) for outputs in (student, teacher)), some(batch, part)
        values, counted = term(*given, examples, START), term.counted_rows(examples)
        # a mean over rows counts as much as the part has rows, as an update weights it
        return values if counted is None else values * counted / len(examples)

    whole = rows(slice(None))
    apart = all(
        torch.allclose(rows(slice(first, None, 2)), whole[first::2], rtol=1e-6, atol=1e-9) for first in range(2)
    )
    remembers = any("memory" in name for name, _ in term.named_buffers())
    assert term.divisible == (apart and not remembers)


def test_a_student_that_equals_its_teacher(case: Case):
    if not case.at_equal:
        pytest.skip("no optimum there")
    student, _, batch = pair(case)
    student, term = leaves(student), build(case, case.student, case.student)
    rows = term(student, student, batch, START)
    rows.sum().backward()
    if case.at_equal != "value":
        assert all(g.abs().max() < 1e-12 for g in gradients(student))
    if case.at_equal == "minimal":
        other, _, _ = pair(case)
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
    term = build(case, case.student, case.teacher, torch.float32)
    for mine, theirs in itertools.product([extreme, one_hot, zero, Tensor.clone], [extreme, one_hot, zero]):
        student, teacher, batch = pair(case, size)
        student = leaves(mapped(student, lambda t, mine=mine: mine(t).to(dtype)))
        teacher = mapped(teacher, lambda t, theirs=theirs: theirs(t).to(dtype))
        # a trained part is given what methods give it: full precision
        rows = term(student.float() if is_trained(term) else student, teacher, batch, START)
        rows.mean().backward()
        assert rows.dtype == torch.float32, FULL
        assert rows.isfinite().all()
        assert gradients(student)
        # dead features far from the teacher's must not blow up either
        assert all(g.isfinite().all() and g.abs().max() < 1e6 for g in gradients(student))


def test_autocast_does_not_touch_the_value(case: Case):
    student, teacher, batch = (mapped(o, Tensor.float) if isinstance(o, Outputs) else o for o in pair(case))
    term = build(case, case.student, case.teacher, torch.float32)
    if is_trained(term):
        pytest.skip("an adapter is a network, and networks run under autocast")
    expected = term(student, teacher, batch, START)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(term(student, teacher, batch, START), expected)
