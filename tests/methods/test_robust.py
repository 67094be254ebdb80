"""Robust distillation: what is attacked, by what, and what each term compares."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.losses.logits.kd import KD
from kdx.methods.robust import RobustDistill
from kdx.models.attack import PGD
from kdx.models.small import MLP, SmallCNN
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import image_classes

MEAN, STD = (0.4,), (0.3,)
SPEC = image_classes(4, (1, 4, 4), 50, MEAN, STD, torch.arange(50) % 4)
START = Progress(0, 10, 10)


def built(objective: Any = "cross_entropy", mode: Any = "eval", student: Any = None, **changes: Any) -> RobustDistill:
    torch.manual_seed(0)
    student = student or MLP([7], 0.0, "tanh", 4, (1, 4, 4))
    teacher = Frozen(MLP([9], 0.0, "tanh", 4, (1, 4, 4)), None, None)
    attack = PGD(**{"radius": 0.05, "step_size": 0.02, "steps": 5, "start": "centre"} | changes)
    terms, moved = {"kd": KD(1.0, "batchmean")}, {"rslad": KD(1.0, "batchmean")}
    weights = {"kd": 1 / 6, "rslad": 5 / 6}
    own = dict(student=student, teacher=teacher, spec=SPEC, terms=terms, weights=weights, temperature=None)
    return RobustDistill(moved, attack, objective, mode, **own).train()


def batch(size: int = 12) -> Batch:
    torch.manual_seed(1)
    index = torch.arange(size)
    return Batch.of_classes((torch.rand(size, 1, 4, 4) - 0.4) / 0.3, index % 4, index)


def value(method: RobustDistill, inputs: torch.Tensor, clean: Batch, objective: str) -> torch.Tensor:
    z, v = method.student(inputs).logits, method.teacher(clean.inputs).logits
    if objective == "cross_entropy":
        return F.cross_entropy(z, clean.labels, reduction="none")
    return F.kl_div(z.log_softmax(1), v.log_softmax(1), reduction="none", log_target=True).sum(1)


@pytest.mark.parametrize("objective", ["cross_entropy", "teacher_kl"])
def test_the_terms_compare_the_student_there_with_the_teacher_here(objective: Any):
    method, examples = built(objective), batch()
    seen = []
    method.student.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    step = method(examples, START)
    moved = seen[-1]
    # a sign loop written out
    x = examples.inputs.clone()
    for _ in range(5):
        x.requires_grad_()
        (g,) = torch.autograd.grad(value(method, x, examples, objective).sum(), x)
        x = (x.detach() + 0.02 / 0.3 * g.sign()).detach()
        x = torch.min(torch.max(x, examples.inputs - 0.05 / 0.3), examples.inputs + 0.05 / 0.3)
        x = ((x * 0.3 + 0.4).clamp(0, 1) - 0.4) / 0.3
    torch.testing.assert_close(moved, x, rtol=1e-4, atol=1e-5)
    assert (value(method, moved, examples, objective) > value(method, examples.inputs, examples, objective)).all()
    kl = [value(method, inputs, examples, "teacher_kl").mean().item() for inputs in (examples.inputs, moved)]
    assert [step.terms[k].item() for k in ("kd", "rslad")] == pytest.approx(kl, rel=1e-4)
    top1 = (method.student(moved).logits.argmax(1) == examples.labels).float().mean().item()
    assert step.report["adversarial/top1"].item() == pytest.approx(top1)


def test_without_a_radius_it_is_plain_distillation():
    step = built(radius=0.0)(batch(), START)
    torch.testing.assert_close(step.terms["rslad"], step.terms["kd"])


@pytest.mark.parametrize(("mode", "passes"), [("train", 7), ("eval", 2)])
def test_the_attack_moves_batch_norms_in_training_mode_alone(mode: Any, passes: int):
    method = built(mode=mode, student=SmallCNN([3], 5, 0.0, 4, (1, 4, 4)))
    method(batch(), START)
    assert dict(method.student.named_buffers())["convs.0.1.num_batches_tracked"] == passes
    assert all(m.training for m in method.student.modules())
    assert all(p.grad is None for p in method.parameters())


def test_mixed_labels_are_what_the_attack_works_against():
    method, examples = built(), batch()
    torch.manual_seed(2)
    soft = torch.randn(12, 4).softmax(1)
    hard = F.one_hot(examples.labels, 4).float()
    seen = []
    method.student.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    moved = []
    for labels in (None, hard, soft):
        method(Batch.of_classes(examples.inputs, examples.labels, examples.index, labels), START)
        moved.append(seen[-1])
    torch.testing.assert_close(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


def test_a_name_is_used_once():
    method = built()
    kd = {"kd": KD(1.0, "batchmean")}
    with pytest.raises(UserError, match="names of their own; both have: kd"):
        own = dict(student=method.student, teacher=method.teacher, spec=SPEC, weights={"kd": 1.0}, temperature=None)
        RobustDistill(kd, method.attack, "teacher_kl", "eval", terms=kd, **own)
