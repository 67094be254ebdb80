"""Distillation as variance reduction: the identity of linear models, and the updates against plain loops."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Geometric, Progress
from kdx.core.spec import DataSpec, Images
from kdx.engine.optim.gradient import Backward, Gradient
from kdx.engine.optim.lbfgs import LBFGS
from kdx.engine.optim.lr import Constant
from kdx.engine.optim.masked import Masked
from kdx.engine.optim.optimizer import SGD
from kdx.engine.optim.update import Joint
from kdx.engine.optim.variance_reduction import TeacherControl
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import KD
from kdx.methods.distill import Distill
from kdx.models.counterpart import counterpart
from kdx.models.small import MLP, Linear
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import Classes

SHAPE, CLASSES, SIZE = (1, 2, 3), 4, 12
NOW = Progress(0, 100, 10)
SGD_ = {"momentum": 0.0, "nesterov": False, "implementation": "foreach", "decay_norm_and_bias": True}


def spec() -> DataSpec:
    return DataSpec(Classes(CLASSES), Images(SHAPE, (0.0,), (1.0,)), SIZE, torch.arange(SIZE) % CLASSES)


def net(hidden: bool = False) -> nn.Module:
    made = MLP([5], 0.0, "tanh", CLASSES, SHAPE) if hidden else Linear(CLASSES, SHAPE)
    for p in made.parameters():
        nn.init.normal_(p)
    return made


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(SIZE, *SHAPE, dtype=torch.float64), torch.randint(CLASSES, (SIZE,))


def part(inputs: Tensor, labels: Tensor, rows: Tensor) -> Batch:
    return Batch.of_classes(inputs[rows], labels[rows], rows)


def method(student: nn.Module, teacher: nn.Module, kd: float | None = None, temperature: float = 1.0) -> Distill:
    terms: dict[str, Any] = {"ce": CrossEntropy(label_smoothing=0.0)}
    weights: dict[str, Any] = {"ce": 1.0}
    if kd is not None:
        terms["kd"], weights = KD(temperature=temperature, reduction="batchmean"), {"ce": 1 - kd, "kd": kd}
    exact = copy.deepcopy(student.state_dict())
    made = Distill(student.float(), Frozen(teacher.float(), None, None), spec(), terms, weights, None).double()
    made.student.load_state_dict(exact)
    return made


def control(**changed: Any) -> TeacherControl:
    return TeacherControl(**{"weight": 0.7, "unbiased": False, "teacher_decay": 0.0, "refresh": None} | changed)


def update(of: Distill, gradient: Gradient | None, lr: float = 0.3, decay: float = 0.0) -> Joint:
    optimizer = SGD(lr=lr, weight_decay=decay, **SGD_)  # pyright: ignore[reportArgumentType]
    return Joint(of, optimizer, Constant(0.0, 0.0), None, None, 1, gradient)


def ce_gradient(of: nn.Module, batch: Batch) -> list[Tensor]:
    loss = F.cross_entropy(of(batch.inputs).logits, batch.labels)
    return list(torch.autograd.grad(loss, list(of.parameters())))


def difference(student: nn.Module, teacher: nn.Module, batch: Batch, weight: float) -> Tensor:
    """The gradient at the student's weights minus `weight` times the one at the teacher's, each of its own loss."""
    own, free = (copy.deepcopy(n).double().requires_grad_(True) for n in (student, teacher))
    return flat(ce_gradient(own, batch)) - weight * flat(ce_gradient(free, batch))


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def orders(epochs: int, size: int = 4) -> list[Tensor]:
    return [rows for _ in range(epochs) for rows in torch.randperm(SIZE).split(size)]


def learned(of: Distill, gradient: Gradient | None, batches: list[Batch], **settings: Any) -> Tensor:
    step = update(of, gradient, **settings)
    for i, batch in enumerate(batches):
        step(batch, Progress(i, len(batches), 10))
    return flat(of.student.parameters())


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
def test_the_gradient_of_kd_is_the_students_minus_the_teachers_own(weight: float):
    student, teacher = net(), net()
    inputs, labels = data()
    batch = part(inputs, labels, torch.arange(SIZE))
    expected = difference(student, teacher, batch, weight)
    distilled = method(student, teacher, weight)
    _, found = Backward(distilled, 1, None).gradient(batch, NOW)
    assert (flat(found) - expected).abs().max() < 1e-6 and expected.abs().max() > 0.1
    alone = method(student, teacher)
    update(alone, control(weight=weight)).gradient(backward := Backward(alone, 1, None), batch, NOW)
    assert (flat(p.grad for p in backward.parameters) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(("hidden", "temperature"), [(True, 1.0), (False, 2.0)])
def test_the_identity_is_of_linear_models_and_temperature_1(hidden: bool, temperature: float):
    student, teacher = net(hidden), net(hidden)
    inputs, labels = data()
    batch = part(inputs, labels, torch.arange(SIZE))
    expected = difference(student, teacher, batch, 0.7)
    _, found = Backward(method(student, teacher, 0.7, temperature), 1, None).gradient(batch, NOW)
    assert (flat(found) - expected).abs().max() > 1e-2


def test_the_biased_update_is_distillation():
    student, teacher = net(), net()
    inputs, labels = data()
    batches = [part(inputs, labels, rows) for rows in orders(3)]
    plain = learned(method(copy.deepcopy(student), teacher, 0.7), None, batches)
    ours = learned(method(copy.deepcopy(student), teacher), control(), batches)
    assert torch.allclose(plain, ours, atol=1e-12) and not torch.allclose(plain, flat(student.parameters()).double())


def test_the_unbiased_update_is_a_plain_loop():
    start, teacher = net(), net()
    inputs, labels = data()
    rows = orders(4, size=5)  # the last batch of an epoch is shorter
    batches = [part(inputs, labels, r) for r in rows]
    free = copy.deepcopy(teacher).double().requires_grad_(True)
    whole = ce_gradient(free, part(inputs, labels, torch.arange(SIZE)))
    loop, first = copy.deepcopy(start).double(), len(rows) // 4
    decay = 0.1
    for i, batch in enumerate(batches):
        g, h = ce_gradient(loop, batch), ce_gradient(free, batch)
        with torch.no_grad():
            for p, a, b, full in zip(loop.parameters(), g, h, whole, strict=True):
                p -= 0.3 * (a + decay * p - (0.7 * (b - full) if i >= first else 0))
    ours = learned(
        method(copy.deepcopy(start), teacher), control(unbiased=True, teacher_decay=decay), batches, decay=decay
    )
    assert torch.allclose(ours, flat(loop.parameters()), atol=1e-12)


def test_the_penalty_of_the_teacher_is_in_its_gradient():
    start, teacher = net(), net()
    inputs, labels = data()
    batches = [part(inputs, labels, rows) for rows in orders(2)]
    loop, free = copy.deepcopy(start).double(), copy.deepcopy(teacher).double().requires_grad_(True)
    for batch in batches:
        g, h = ce_gradient(loop, batch), ce_gradient(free, batch)
        with torch.no_grad():
            for p, t, a, b in zip(loop.parameters(), free.parameters(), g, h, strict=True):
                p -= 0.3 * (a + 0.1 * p - 0.7 * (b + 0.1 * t))
    ours = learned(method(copy.deepcopy(start), teacher), control(teacher_decay=0.1), batches, decay=0.1)
    assert torch.allclose(ours, flat(loop.parameters()), atol=1e-12)


def test_refreshed_weights_with_weight_1_are_svrg():
    start = net()
    inputs, labels = data()
    batches = [part(inputs, labels, rows) for rows in orders(4)]
    loop, per_epoch = copy.deepcopy(start).double(), len(batches) // 4
    snapshot, whole = copy.deepcopy(loop), []
    for i, batch in enumerate(batches):
        if i % (2 * per_epoch) == 0:
            snapshot = copy.deepcopy(loop)
            whole = ce_gradient(snapshot, part(inputs, labels, torch.arange(SIZE)))
        gathers = i // per_epoch % 2 == 0
        g, h = ce_gradient(loop, batch), ce_gradient(snapshot, batch)
        with torch.no_grad():
            for p, a, b, full in zip(loop.parameters(), g, h, whole, strict=True):
                p -= 0.3 * (a if gathers else a - b + full)
    ours = learned(method(copy.deepcopy(start), net()), control(weight=1.0, unbiased=True, refresh=2), batches)
    assert torch.allclose(ours, flat(loop.parameters()), atol=1e-12)


def test_a_resumed_run_continues_bit_for_bit():
    start, teacher = net(), net()
    inputs, labels = data()
    batches = [part(inputs, labels, rows) for rows in orders(4)]

    def gradient() -> Masked:
        return Masked(keep=0.5, choose="initial", seed=0, inner=control(unbiased=True, refresh=2))

    whole = learned(method(copy.deepcopy(start), teacher), gradient(), batches)
    first = method(copy.deepcopy(start), teacher)
    step = update(first, gradient())
    for i in range(7):
        step(batches[i], Progress(i, len(batches), 10))
    state = copy.deepcopy(step.state_dict())
    second = method(copy.deepcopy(first.student), teacher)
    step = update(second, gradient())
    step.load_state_dict(state)
    for i in range(7, len(batches)):
        step(batches[i], Progress(i, len(batches), 10))
    assert torch.equal(flat(second.student.parameters()), whole)


def test_a_weight_may_be_a_schedule():
    schedule = Geometric(0.5, 1.1, limit=0.7)
    values = [schedule(Progress(step, 100, 10)) for step in (0, 9, 10, 25, 90)]
    assert values == pytest.approx([0.5, 0.5, 0.55, 0.605, 0.7])
    start, teacher = net(), net()
    inputs, labels = data()
    batch = part(inputs, labels, torch.arange(SIZE))
    at_once = [learned(method(copy.deepcopy(start), teacher), control(weight=w), [batch]) for w in (schedule, 0.5)]
    assert torch.equal(*at_once)


@pytest.mark.parametrize("choose", ["random", "initial", "teacher"])
def test_a_mask_is_projected_gradient_descent(choose: Any):
    start, teacher = net(), net()
    inputs, labels = data()
    batches = [part(inputs, labels, rows) for rows in orders(3)]
    scene, masked = method(copy.deepcopy(start), teacher), Masked(keep=0.25, choose=choose, seed=1, inner=control())
    step, free = update(scene, masked), copy.deepcopy(teacher).double().requires_grad_(True)
    loop = copy.deepcopy(start).double()
    for i, batch in enumerate(batches):
        step(batch, Progress(i, len(batches), 10))
        weight, bias = scene.student.parameters()
        assert int((weight != 0).sum()) == 6 and bool((bias != 0).all())  # a quarter of 4 x 6
        mask = [(weight != 0).double(), torch.ones_like(bias)]
        if i == 0:
            with torch.no_grad():
                for p, m in zip(loop.parameters(), mask, strict=True):
                    p *= m
        g, h = ce_gradient(loop, batch), ce_gradient(free, batch)
        with torch.no_grad():
            for p, a, b, m in zip(loop.parameters(), g, h, mask, strict=True):
                p.copy_(m * (p - 0.3 * (a - 0.7 * b)))
    assert torch.allclose(flat(scene.student.parameters()), flat(loop.parameters()), atol=1e-12)
    if choose != "random":
        by = (start if choose == "initial" else teacher).fc.weight.detach().abs()
        kept = masked.masks[0].bool()
        assert by[kept].min() > by[~kept].max()


def test_a_teacher_of_another_architecture_is_refused():
    with pytest.raises(UserError, match="a teacher of the student's architecture"):
        counterpart(net(), net(hidden=True))
    own = Frozen(net(), ((0.5,), (0.5,)), ((0.0,), (1.0,)))
    assert counterpart(net(), Frozen(own.net, None, None)).keys() == {"fc.weight", "fc.bias"}
    with pytest.raises(UserError, match="normalisation"):
        counterpart(net(), own)
    batch = part(*data(), torch.arange(4))
    with pytest.raises(UserError, match="architecture"):
        update(method(net(), net(hidden=True)), control())(batch, NOW)


def test_lbfgs_finds_the_optimum_of_the_penalised_loss():
    student = net()
    inputs, labels = data()
    batch = part(inputs, labels, torch.arange(SIZE))
    optimizer = SGD(lr=1.0, weight_decay=0.1, **SGD_)  # pyright: ignore[reportArgumentType]
    step = LBFGS(method(student, net()), optimizer, Constant(0.0, 0.0), None, iterations=50, history=20)
    for i in range(3):
        step(batch, Progress(i, 3, 3))
    gradient = [g + 0.1 * p for g, p in zip(ce_gradient(student, batch), student.parameters(), strict=True)]
    assert flat(gradient).abs().max() < 1e-8


def test_the_penalty_spares_what_the_optimizer_spares():
    student = net()
    batch = part(*data(), torch.arange(SIZE))
    settings: Any = {**SGD_, "decay_norm_and_bias": False}
    optimizer = SGD(lr=1.0, weight_decay=0.1, **settings)
    step = LBFGS(method(student, net()), optimizer, Constant(0.0, 0.0), None, iterations=100, history=20)
    step(batch, NOW)
    weight, bias = ce_gradient(student, batch)
    assert bias.abs().max() < 1e-6 and (weight + 0.1 * student.get_parameter("fc.weight")).abs().max() < 1e-6
