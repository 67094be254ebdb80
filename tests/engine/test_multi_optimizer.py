"""Steps of several optimisers against gradients computed in the test."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.outputs import Step, Turn
from kdx.core.schedule import Linear, Progress
from kdx.engine.optim.multi_optimizer import Peers, Turns
from kdx.engine.optim.optimizer import SGD, AdamW
from kdx.engine.optim.update import Joint

NOW = Progress(2, 8, 8)  # half of the base learning rate


class Pair(Method):
    """Two linear maps; each matches the other, and the first also a target."""

    def __init__(self):
        super().__init__()
        self.student, self.other = (nn.Linear(3, 2).double() for _ in range(2))
        self.weights = {"target": 0.3, "match": Linear(0.0, 1.4, until=8)}

    def parties(self):
        return {"student": (self.student,), "other": (self.other,)}

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        a, b = self.student(batch.inputs), self.other(batch.inputs)
        return (a - 1).square().mean(), (a - b.detach()).square().mean(), (b - a.detach()).square().mean()

    def forward(self, batch: Batch, progress: Progress) -> Step:
        target, first, second = self.losses(batch)
        return Step({"target": target, "match": first + second})

    def turns(self, batch: Batch, progress: Progress) -> Iterator[Turn]:
        target, first, _ = self.losses(batch)
        yield Turn("student", Step({"target": target, "match": first}, {"seen": target.detach()}))
        yield Turn("other", Step({"match": self.losses(batch)[2]}))


class Fighters(Pair):
    needs_turns = True


class Alone(Pair):
    def parties(self):
        return {}


def pair(kind: type[Pair] = Pair) -> Pair:
    torch.manual_seed(0)
    return kind()


def batch(size: int = 6) -> Batch:
    inputs = torch.randn(size, 3, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return Batch.of_classes(inputs, torch.zeros(size, dtype=torch.long), torch.arange(size))


SGD_ = {
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.01,
    "decay_norm_and_bias": True,
    "implementation": "foreach",
}


def settings(**changed) -> dict:
    rate = {"optimizer": SGD(lr=0.4, **SGD_), "lr_schedule": Linear(0.0, 1.0, until=4), "autocast": None}
    return {**rate, "optimizers": {}, "clip_norm": None, **changed}


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def gradient(loss: torch.Tensor, module: nn.Module) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


def moved(before: torch.Tensor, g: torch.Tensor, lr: float = 0.2) -> torch.Tensor:
    """One step of SGD with zero momentum buffer."""
    return before - lr * (g + 0.01 * before)


def test_the_second_turn_sees_what_the_first_became():
    method, data, by_hand = pair(), batch(), pair()
    match = 0.35  # a quarter of the way to 1.4
    target, first, _ = by_hand.losses(data)
    student = moved(flat(by_hand.student), gradient(0.3 * target + match * first, by_hand.student))
    nn.utils.vector_to_parameters(student, by_hand.student.parameters())
    second = by_hand.losses(data)[2]
    other = moved(flat(by_hand.other), gradient(match * second, by_hand.other))

    step = Turns(method=method, **settings())(data, NOW)
    assert torch.allclose(flat(method.student), student, rtol=1e-12)
    assert torch.allclose(flat(method.other), other, rtol=1e-12)
    assert step.terms["match"].item() == pytest.approx((first + second).item(), rel=1e-12)
    assert step.terms["target"].item() == pytest.approx(target.item(), rel=1e-12)
    loss = 0.3 * target + match * (first + second)
    assert step.report["loss"].item() == pytest.approx(loss.item(), rel=1e-12)
    assert step.report["seen"].item() == pytest.approx(target.item(), rel=1e-12)


def test_at_once_all_see_the_same():
    method, data, by_hand = pair(), batch(), pair()
    target, first, second = by_hand.losses(data)
    student = moved(flat(by_hand.student), gradient(0.3 * target + 0.35 * first, by_hand.student))
    other = moved(flat(by_hand.other), gradient(0.35 * second, by_hand.other))
    Peers(method=method, **settings(accumulate=1, gradient=None))(data, NOW)
    assert torch.allclose(flat(method.student), student, rtol=1e-12)
    assert torch.allclose(flat(method.other), other, rtol=1e-12)


def test_one_optimiser_for_all_does_the_same_where_gradients_are_not_bounded():
    one, two, data = pair(), pair(), batch()
    joint = {k: v for k, v in settings(accumulate=1, gradient=None).items() if k != "optimizers"}
    updates = Joint(method=one, **joint), Peers(method=two, **settings(accumulate=1, gradient=None))
    for step in range(5):
        for update in updates:
            update(data, Progress(step, 8, 8))
    assert torch.equal(flat(one), flat(two))


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_is_one_big_batch(accumulate: int):
    whole, parts, data = pair(), pair(), batch(7)
    Peers(method=whole, **settings(accumulate=1, gradient=None))(data, NOW)
    Peers(method=parts, **settings(accumulate=accumulate, gradient=None))(data, NOW)
    assert torch.allclose(flat(whole), flat(parts), rtol=1e-12)


@pytest.mark.parametrize("kind", [Peers, Turns])
def test_the_gradient_of_each_party_is_bounded_by_itself(kind):
    bound, free, data = pair(), pair(), batch()
    extra = {"accumulate": 1, "gradient": None} if kind is Peers else {}
    target, first, second = free.losses(data)
    own = gradient(0.3 * target + 0.35 * first, free.student)
    kind(method=bound, **settings(clip_norm=0.01, **extra))(data, NOW)
    assert own.norm() > 0.01
    assert torch.allclose(flat(bound.student), moved(flat(free.student), own * 0.01 / own.norm()), rtol=1e-4)
    if kind is Peers:
        own = gradient(0.35 * second, free.other)
        assert torch.allclose(flat(bound.other), moved(flat(free.other), own * 0.01 / own.norm()), rtol=1e-4)


def test_a_party_may_have_an_optimiser_of_its_own():
    method, data = pair(), batch()
    adam = AdamW(
        lr=0.05, beta1=0.9, beta2=0.999, eps=1e-12, weight_decay=0.0, decay_norm_and_bias=True, implementation="foreach"
    )
    update = Turns(method=method, **settings(optimizers={"other": adam}))
    before = flat(method.other)
    update(data, NOW)
    assert update.lr == pytest.approx(0.2)  # the student's
    # the first step of Adam has the size of its learning rate for any gradient
    assert torch.allclose((flat(method.other) - before).abs(), torch.full_like(before, 0.025), rtol=1e-6)


@pytest.mark.parametrize("kind", [Peers, Turns])
def test_saved_and_loaded_it_takes_the_same_next_step(kind):
    extra = {"accumulate": 1, "gradient": None} if kind is Peers else {}
    method, data = pair(), batch()
    update = kind(method=method, **settings(**extra))
    for step in range(3):
        update(data, Progress(step, 8, 8))
    weights, state = copy.deepcopy(method.training_state()), copy.deepcopy(update.state_dict())
    update(data, Progress(3, 8, 8))
    other = pair()
    resumed = kind(method=other, **settings(**extra))
    other.load_training_state(weights)
    resumed.load_state_dict(state)
    resumed(data, Progress(3, 8, 8))
    assert torch.equal(flat(method), flat(other))


def test_what_cannot_be_is_refused_in_a_sentence():
    joint = {k: v for k, v in settings(accumulate=1, gradient=None).items() if k != "optimizers"}
    with pytest.raises(UserError, match="Fighters optimize opposing terms.*choose update=turns"):
        Joint(method=pair(Fighters), **joint)
    with pytest.raises(UserError, match="Fighters optimize opposing terms.*choose update=turns"):
        Peers(method=pair(Fighters), **settings(accumulate=1, gradient=None))
    with pytest.raises(UserError, match="no parties.*choose update=joint"):
        Turns(method=pair(Alone), **settings())
    with pytest.raises(UserError, match="no party 'othr'; did you mean 'other'"):
        Turns(method=pair(), **settings(optimizers={"othr": SGD(lr=0.1, **SGD_)}))
