"""Adversarial training: what is attacked, what is learnt from there, and that it makes a network robust."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdx.config.compose import compose
from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.methods.pgd_at import AdversarialTraining
from kdx.models.attack import PGD
from kdx.models.small import MLP, SmallCNN
from kdx.runs.prepare import prepare
from kdx.tasks.classes import image_classes

MEAN, STD = (0.4,), (0.3,)
SPEC = image_classes(4, (1, 4, 4), 50, MEAN, STD, torch.arange(50) % 4)
START = Progress(0, 10, 10)


def built(mode: Any = "eval", student: Any = None, smoothing: float = 0.0, **changes: Any) -> AdversarialTraining:
    torch.manual_seed(0)
    student = student or MLP([7], 0.0, "tanh", 4, (1, 4, 4))
    attack = PGD(**{"radius": 0.05, "step_size": 0.02, "steps": 5, "start": "centre"} | changes)
    return AdversarialTraining(student, SPEC, {"adversarial": 1.0}, smoothing, attack, mode).train()


def batch(size: int = 12) -> Batch:
    torch.manual_seed(1)
    index = torch.arange(size)
    return Batch.of_classes((torch.rand(size, 1, 4, 4) - 0.4) / 0.3, index % 4, index)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_cross_entropy_where_a_sign_loop_leads(smoothing: float):
    method, examples = built(smoothing=smoothing), batch()
    step = method(examples, START)
    x = examples.inputs.clone()
    for _ in range(5):
        x.requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(method.student(x).logits, examples.labels), x)
        x = (x.detach() + 0.02 / 0.3 * g.sign()).detach()
        x = torch.min(torch.max(x, examples.inputs - 0.05 / 0.3), examples.inputs + 0.05 / 0.3)
        x = ((x * 0.3 + 0.4).clamp(0, 1) - 0.4) / 0.3
    logits = method.student(x).logits
    expected = F.cross_entropy(logits, examples.labels, label_smoothing=smoothing)
    torch.testing.assert_close(step.terms["adversarial"], expected, rtol=1e-4, atol=1e-5)
    assert step.report["adversarial/top1"] == (logits.argmax(1) == examples.labels).float().mean()


def test_mixed_labels_are_what_the_attack_works_against():
    method, examples = built(), batch()
    one_hot = F.one_hot(examples.labels, 4).float()
    values = [
        method(examples.with_targets(soft_labels=soft), START).terms["adversarial"]
        for soft in (None, one_hot, one_hot.roll(1, 1))
    ]
    torch.testing.assert_close(values[0], values[1])
    assert not torch.isclose(values[0], values[2])


@pytest.mark.parametrize(("mode", "passes"), [("train", 6), ("eval", 1)])
def test_the_attack_moves_batch_norms_in_training_mode_alone(mode: Any, passes: int):
    method = built(mode=mode, student=SmallCNN([3], 5, 0.0, 4, (1, 4, 4)))
    method(batch(), START)
    assert dict(method.student.named_buffers())["convs.0.1.num_batches_tracked"] == passes
    assert all(m.training for m in method.student.modules())
    assert all(p.grad is None for p in method.parameters())


class Slope(nn.Module):
    """Two pixels, class 1 where their weighted sum is above 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.1, 0.1]))

    def forward(self, x: torch.Tensor) -> Outputs:
        z = x.flatten(1) @ self.weight
        return Outputs(torch.stack([-z, z], 1))


def test_of_two_pixels_it_learns_the_one_that_the_attack_cannot_turn():
    # both pixels tell the class, the second by less than the attack may move it
    labels = torch.arange(20) % 2
    sign = (2 * labels - 1).float()
    inputs = torch.stack([0.3 * sign, 0.05 * sign], 1).view(-1, 1, 1, 2)
    spec = image_classes(2, (1, 1, 2), 20, (0.5,), (1.0,), labels)
    examples = Batch.of_classes(inputs, labels, torch.arange(20))

    def learnt(radius: float) -> torch.Tensor:
        attack = PGD(radius=radius, step_size=0.05, steps=4, start="centre")
        method = AdversarialTraining(Slope(), spec, {"adversarial": 1.0}, 0.0, attack, "eval")
        optimizer = torch.optim.SGD(method.parameters(), 1.0)
        for _ in range(200):
            optimizer.zero_grad()
            method(examples, START).terms["adversarial"].backward()
            optimizer.step()
        return method.student.weight.detach()

    natural, robust = learnt(0.0), learnt(0.1)
    assert natural[1] > 0.1 and natural[0] > 1
    # an attack of 0.1 leaves 0.2 of the first pixel's 0.3, and turns the second to -0.05
    assert robust[0] > 1 and robust[1].abs() < 0.05


def test_a_teacher_is_trained_this_way_by_its_recipe():
    config = prepare(compose(["method=ard", "teacher.recipe=['method=pgd_at','method.attack.radius=0.1']"]))
    training = config.teacher.training
    assert training.choices["method"] == "pgd_at" and training.method["attack"]["radius"] == 0.1
    assert training.student.net == config.teacher.net and training.teacher is None
