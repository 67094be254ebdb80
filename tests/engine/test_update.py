"""A joint step against gradients computed in the test."""

import copy

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Step
from kdx.core.schedule import Linear, Progress
from kdx.engine.optim.optimizer import SGD
from kdx.engine.optim.update import Joint
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import KD
from kdx.methods.distill import Distill
from kdx.models.small import MLP
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import image_classes

SPEC = image_classes(3, (1, 2, 4), 32, (0.0,), (1.0,))
NOW = Progress(2, 8, 8)


def method() -> Distill:
    torch.manual_seed(0)
    facts = {"dropout": 0.0, "activation": "tanh", "num_classes": 3, "input_shape": (1, 2, 4)}
    terms = {"ce": CrossEntropy(label_smoothing=0.0), "kd": KD(temperature=4.0, reduction="batchmean")}
    student, teacher = MLP(hidden=(5,), **facts), Frozen(MLP(hidden=(9,), **facts), None, None)
    scene = Distill(student, teacher, SPEC, terms, {"ce": 0.3, "kd": 0.7}, temperature=None)
    return scene.double().train()


def batch(size: int, soft: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(size)
    labels = torch.randint(3, (size,), generator=generator)
    rows = torch.rand(size, 3, generator=generator, dtype=torch.float64).softmax(1) if soft else None
    inputs = torch.randn(size, 1, 2, 4, generator=generator, dtype=torch.float64)
    return Batch.of_classes(inputs, labels, torch.arange(size), rows)


def update(scene: Distill, **changed) -> Joint:
    settings = {"autocast": None, "clip_norm": None, "accumulate": 1, "gradient": None}
    settings |= {"lr_schedule": Linear(0.0, 1.0, until=4)}
    optimizer = SGD(
        lr=0.4, weight_decay=0.01, decay_norm_and_bias=True, momentum=0.9, nesterov=False, implementation="foreach"
    )
    return Joint(method=scene, optimizer=optimizer, **settings | changed)


def student(scene: Distill) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in scene.student.parameters()])


def gradient(scene: Distill, data: Batch) -> torch.Tensor:
    """Gradients by autograd, on a loss written out here."""
    net = copy.deepcopy(scene.student)
    logits, taught = net(data.inputs).logits, scene.teacher(data.inputs).logits
    targets = data.labels if data.soft_labels is None else data.soft_labels
    p, q = (taught / 4).softmax(1), (logits / 4).softmax(1)
    soft = 16 * (p * (p.log() - q.log())).sum(1).mean()
    (0.3 * nn.functional.cross_entropy(logits, targets) + 0.7 * soft).backward()
    return torch.cat([x.grad.flatten() for x in net.parameters()])


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("size, soft", [(16, False), (13, False), (13, True), (1, False)])
def test_accumulation_is_one_big_batch_under_sgd(accumulate: int, size: int, soft: bool):
    scene, data = method(), batch(size, soft)
    before, g = student(scene), gradient(scene, data)
    step = update(scene, accumulate=accumulate)(data, NOW)
    # at progress 2 of 8 of a schedule of 8 epochs, the learning rate is half its base
    assert torch.allclose(student(scene), before - 0.2 * (g + 0.01 * before), rtol=1e-12, atol=1e-14)
    whole = method()
    reference = update(whole)(data, NOW)
    for name, value in reference.terms.items():
        assert step.terms[name].item() == pytest.approx(value.item(), rel=1e-12)
    assert step.report["loss"].item() == pytest.approx(reference.report["loss"].item(), rel=1e-12)
    assert torch.allclose(step.outputs.logits, reference.outputs.logits, rtol=1e-12)
    assert step.report["loss"].item() == pytest.approx(
        0.3 * step.terms["ce"].item() + 0.7 * step.terms["kd"].item(), rel=1e-12
    )


@pytest.mark.parametrize(("accumulate", "sizes"), [(1, [13]), (3, [5, 4, 4]), (5, [3, 3, 3, 2, 2]), (16, [1] * 13)])
def test_accumulation_calls_the_method_once_a_part(accumulate: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch):
    scene, seen = method(), list[int]()
    own = type(scene).forward

    def forward(self: Distill, data: Batch, now: Progress) -> Step:
        seen.append(len(data))
        return own(self, data, now)

    monkeypatch.setattr(type(scene), "forward", forward)
    update(scene, accumulate=accumulate)(batch(13), NOW)
    assert sorted(seen, reverse=True) == sizes


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("bound", [0.01, 1e6])
def test_the_whole_gradient_is_bounded_not_its_parts(accumulate: int, bound: float):
    scene, data = method(), batch(13)
    before, g = student(scene), gradient(scene, data)
    update(scene, accumulate=accumulate, clip_norm=bound)(data, NOW)
    g = g * min(1.0, bound / g.norm().item())
    assert torch.allclose(student(scene), before - 0.2 * (g + 0.01 * before), rtol=1e-5, atol=1e-12)


def test_the_rate_is_set_before_each_step():
    scene = method()
    joint = update(scene)
    before = student(scene)
    joint(batch(4), Progress(0, 8, 8))
    assert joint.lr == 0.0 and torch.equal(student(scene), before)
    for step in range(1, 8):
        joint(batch(4), Progress(step, 8, 8))
        assert joint.lr == pytest.approx(0.4 * min(step / 4, 1))


def test_saved_and_loaded_it_takes_the_same_next_step():
    scene = method()
    joint = update(scene)
    for step in range(3):
        joint(batch(5 + step), Progress(step, 8, 8))
    weights, state = copy.deepcopy(scene.training_state()), copy.deepcopy(joint.state_dict())
    joint(batch(9), Progress(3, 8, 8))
    other = method()
    resumed = update(other)
    other.load_training_state(weights)
    resumed.load_state_dict(state)
    resumed(batch(9), Progress(3, 8, 8))
    assert torch.equal(student(other), student(scene))


def test_gradients_of_the_step_before_are_forgotten():
    scene, twice = method(), method()
    joint, data = update(scene), batch(8)
    for p in scene.student.parameters():
        p.grad = torch.full_like(p, 100.0)
    joint(data, NOW)
    update(twice)(data, NOW)
    assert torch.equal(student(scene), student(twice))
