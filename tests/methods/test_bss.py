"""Boundary samples: which samples are moved, towards what, and what the student learns there."""

from typing import Any

import pytest
import torch
from torch import nn

from kdx.config.compose import compose
from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Progress, Ramp
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import SoftCrossEntropy
from kdx.methods.bss import BoundarySamples
from kdx.models.attack import BoundaryAttack
from kdx.models.small import MLP, SmallCNN
from kdx.models.teachers.frozen import Frozen
from kdx.runs.build import make
from kdx.tasks.classes import image_classes

SPEC = image_classes(4, (1, 4, 4), 50, (0.0,), (1.0,), torch.arange(50) % 4)
START = Progress(0, 10, 10)


class Seen(BoundaryAttack):
    """Notes what it is asked, and answers with the inputs as they came, doubled."""

    def __call__(self, network: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        CALLS.append((inputs, targets))
        return 2 * inputs


CALLS: list[tuple[torch.Tensor, torch.Tensor]] = []


def built(
    most: int = 64, correct: Any = "teacher", norms: Any = "train", weight: Any = 1.0, student: Any = None
) -> BoundarySamples:
    torch.manual_seed(0)
    CALLS.clear()
    student = student or MLP([7], 0.0, "tanh", 4, (1, 4, 4))
    teacher = MLP([9], 0.0, "tanh", 4, (1, 4, 4))
    with torch.no_grad():
        teacher.fc.weight.mul_(6)
    attack = Seen(steps=1, step_size=1.0, margin=1e-4, low=-2.5, high=2.5)
    terms, boundary = {"ce": CrossEntropy(0.0)}, {"bss": SoftCrossEntropy(3.0, "batchmean")}
    weights = {"ce": 1.0, "bss": weight}
    own = dict(student=student, teacher=Frozen(teacher, None, None), spec=SPEC, terms=terms, weights=weights)
    return BoundarySamples(boundary, attack, most, correct, norms, temperature=None, **own).train()


def batch(method: BoundarySamples, size: int = 40) -> Batch:
    """Half of the labels are what the teacher says."""
    x, index = torch.randn(size, 1, 4, 4), torch.arange(size)
    y = method.teacher(x).logits.argmax(1)
    return Batch.of_classes(x, torch.where(index % 2 == 0, y, (y + 1) % 4), index)


@pytest.mark.parametrize("correct", ["teacher", "both"])
@pytest.mark.parametrize("most", [64, 2])
def test_right_samples_are_moved_those_first_where_the_networks_differ(correct: Any, most: int):
    method = built(most, correct)
    examples = batch(method)
    method(examples, START)
    with torch.no_grad():
        z, v = method.student(examples.inputs).logits, method.teacher(examples.inputs).logits
    scores = {}
    for i in range(40):
        right = [int(logits[i].argmax()) == int(examples.labels[i]) for logits in (v, z)]
        if all(right) if correct == "both" else right[0]:
            p, q = v[i].softmax(0), z[i].softmax(0)
            scores[i] = float(sum((p[k] - q[k]) ** 2 for k in range(4) if k != int(examples.labels[i])))
    assert 2 < len(scores) <= 20
    expected = set(sorted(scores, key=lambda i: -scores[i])[:most])
    inputs, _ = CALLS[0]
    moved = {i for i in range(40) for row in inputs if torch.equal(row, examples.inputs[i])}
    assert moved == expected and len(inputs) == len(expected)


def test_targets_are_drawn_by_the_teachers_probabilities_of_the_others():
    method = built(most=20000)
    one = torch.randn(1, 1, 4, 4)
    logits = method.teacher(one).logits[0]
    base = int(logits.argmax())
    x = one.repeat(20000, 1, 1, 1)
    y = torch.full((20000,), base)
    method(Batch.of_classes(x, y, y), START)
    _, targets = CALLS[0]
    p = logits.softmax(0)
    expected = p / (1 - p[base])
    expected[base] = 0
    torch.testing.assert_close(targets.bincount(minlength=4) / 20000, expected, rtol=0, atol=0.015)
    assert (targets != base).all()


def test_a_teacher_that_is_sure_still_has_targets():
    method = built()
    with torch.no_grad():
        method.teacher.net.fc.weight.mul_(1e4)  # pyright: ignore
    examples = batch(method)
    assert (method.teacher(examples.inputs).logits.softmax(1).amax(1) == 1).any()
    method(examples, START)
    inputs, targets = CALLS[0]
    assert (targets != method.teacher(inputs).logits.argmax(1)).all()


def test_the_boundary_term_is_the_mean_over_the_moved_samples_alone():
    method = built()
    examples = batch(method)
    step = method(examples, START)
    inputs, _ = CALLS[0]
    with torch.no_grad():
        z, v = method.student(2 * inputs).logits.double(), method.teacher(2 * inputs).logits.double()
    rows = -9 * (v.div(3).softmax(1) * z.div(3).log_softmax(1)).sum(1)
    assert step.terms["bss"].item() == pytest.approx(rows.mean().item(), rel=1e-5)
    assert step.report["boundary/moved"].item() == 0.5
    crossed = (method.teacher(2 * inputs).logits.argmax(1) != method.teacher(inputs).logits.argmax(1)).float().mean()
    assert step.report["boundary/crossed"].item() == pytest.approx(crossed.item())
    (gradient,) = torch.autograd.grad(step.terms["bss"], dict(method.student.named_parameters())["fc.weight"])
    assert gradient.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())


def test_nothing_is_moved_where_nothing_is_right_or_the_weight_is_zero():
    method = built(weight=Ramp(1.0, 0.0, until=0.5))
    examples = batch(method)
    wrong = Batch.of_classes(
        examples.inputs, (method.teacher(examples.inputs).logits.argmax(1) + 1) % 4, examples.index
    )
    step = method(wrong, START)
    assert not CALLS and step.terms["bss"] == 0 and step.report["boundary/moved"] == 0
    before = torch.get_rng_state()
    step = method(examples, Progress(5, 10, 10))
    assert not CALLS and step.terms["bss"] == 0
    assert torch.equal(torch.get_rng_state(), before)
    method(examples, Progress(4, 10, 10))
    assert CALLS


@pytest.mark.parametrize("norms", ["train", "frozen"])
def test_batch_norms_see_boundary_samples_or_do_not(norms: Any):
    method = built(norms=norms, student=SmallCNN([3], 5, 0.0, 4, (1, 4, 4)))
    count = dict(method.student.named_buffers())["convs.0.1.num_batches_tracked"]
    method(batch(method), START)
    assert count == (2 if norms == "train" else 1)
    assert method.student.training and all(m.training for m in method.student.modules())


def test_a_single_sample_is_moved_too():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.net = nn.BatchNorm1d(16), MLP([7], 0.0, "tanh", 4, (1, 4, 4))

        def forward(self, x: torch.Tensor) -> Any:
            return self.net(self.norm(x.flatten(1)).view_as(x))

    method = built(most=1, student=Normed())
    step = method(batch(method), START)
    assert len(CALLS[0][0]) == 1 and step.terms["bss"].isfinite()


def test_the_authors_schedules():
    node = compose(["method=bss"]).config["method"]
    kd, bss = make(node["weights"]["kd"]), make(node["weights"]["bss"])
    for step in range(100):
        e = step / 100
        progress = Progress(step, 100, 80)
        # with the T^2 = 9 that is inside the terms
        assert 9 * kd(progress) == pytest.approx(1 + 3 * (1 - e))
        assert 9 * bss(progress) == pytest.approx(max(0, 2 * (1 - 4 * e / 3)), abs=1e-9)


def test_refusals():
    method = built()
    terms, given = {"a": CrossEntropy(0.0)}, (method.attack, 1, "teacher", "train")
    own = dict(student=method.student, spec=SPEC, temperature=None)
    with pytest.raises(UserError, match="names of their own; both have: a"):
        BoundarySamples(terms, *given, teacher=method.teacher, terms=terms, weights={"a": 1.0}, **own)
    with pytest.raises(UserError, match="a MLP has none"):
        BoundarySamples({}, *given, teacher=method.student, terms={}, weights={}, **own)


def test_each_term_is_the_mean_over_its_samples():
    """Cross-entropy over the batch, and soft cross-entropy at T 3 over the moved samples alone, written out."""
    method = built(norms="frozen")
    examples = batch(method, 12)
    step = method(examples, START)
    logits = method.student(examples.inputs).logits
    rows = [-row.log_softmax(0)[label] for row, label in zip(logits, examples.labels, strict=True)]
    torch.testing.assert_close(step.terms["ce"], torch.stack(rows).sum() / 12)
    (moved, _), *others = CALLS
    assert 1 < len(moved) < 12 and not others
    soft = []
    for x in moved:
        z, v = (net(2 * x[None]).logits[0] / 3 for net in (method.student, method.teacher))
        soft.append(-9 * (v.softmax(0) * z.log_softmax(0)).sum())
    torch.testing.assert_close(step.terms["bss"], torch.stack(soft).sum() / len(moved))
