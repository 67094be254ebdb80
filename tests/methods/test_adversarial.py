"""Student against discriminator: whose turn moves whom, and that each sees what the other has become."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Linear, Progress
from kdx.engine.optim.multi_optimizer import Peers, Turns
from kdx.engine.optim.optimizer import SGD
from kdx.engine.optim.update import Joint
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.methods.adversarial import Adversarial
from kdx.models.small import MLP
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import image_classes

SPEC = image_classes(3, (1, 2, 4), 32, (0.0,), (1.0,))
NOW = Progress(4, 8, 8)
FACTS = {"dropout": 0.0, "activation": "tanh", "num_classes": 3, "input_shape": (1, 2, 4)}
SETTINGS = {"autocast": None, "clip_norm": None, "lr_schedule": Linear(1.0, 1.1, until=8)}


def method(role: str = "logits", **changed) -> Adversarial:
    torch.manual_seed(0)
    student, teacher = MLP(hidden=(5,), **FACTS), Frozen(MLP(hidden=(9,), **FACTS), None, None)
    given = {
        "terms": {"ce": CrossEntropy(label_smoothing=0.0)},
        "weights": {"ce": 1.0, "adversarial": 0.5, "discriminator": 2.0},
        "temperature": None,
        "role": role,
        "hidden": [8, 6],
    }
    return Adversarial(student=student, teacher=teacher, spec=SPEC, **given | changed).double().train()


def batch(size: int = 6) -> Batch:
    inputs = torch.randn(size, 1, 2, 4, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return Batch.of_classes(inputs, torch.arange(size) % 3, torch.arange(size))


def sgd(lr: float = 0.1) -> SGD:
    return SGD(
        lr=lr, weight_decay=0.0, decay_norm_and_bias=True, momentum=0.0, nesterov=False, implementation="foreach"
    )


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("role", ["logits", "probs", "pooled"])
def test_both_turns_are_steps_along_gradients_taken_by_hand(role: str):
    scene, by_hand, data = method(role), method(role), batch()
    Turns(method=scene, optimizer=sgd(), optimizers={"discriminator": sgd(0.3)}, **SETTINGS)(data, NOW)
    rate = 1.05

    def rows(outputs):
        return {"logits": outputs.logits, "probs": outputs.logits.softmax(1)}.get(role, outputs.features["pooled"])

    own, taught = by_hand.student(data.inputs), rows(by_hand.teacher(data.inputs))
    judge = by_hand.discriminator
    seen = by_hand.adapter(rows(own))
    probability = judge(taught).sigmoid(), judge(seen.detach()).sigmoid()
    loss = 2.0 * (-probability[0].log() - (1 - probability[1]).log()).mean()
    g = torch.cat([x.flatten() for x in torch.autograd.grad(loss, list(judge.parameters()))])
    expected = flat(judge) - 0.3 * rate * g
    assert torch.allclose(flat(scene.discriminator), expected, rtol=1e-9)

    nn.utils.vector_to_parameters(expected, judge.parameters())
    loss = F.cross_entropy(own.logits, data.labels) - 0.5 * judge(seen).sigmoid().log().mean()
    learners = nn.ModuleList([by_hand.student, by_hand.adapter])
    g = torch.cat([x.flatten() for x in torch.autograd.grad(loss, list(learners.parameters()))])
    moved = flat(learners) - 0.1 * rate * g
    assert torch.allclose(flat(nn.ModuleList([scene.student, scene.adapter])), moved, rtol=1e-9)


def test_an_adapter_stands_where_sizes_differ_alone():
    assert isinstance(method("logits").adapter, nn.Identity)
    adapter = method("pooled").adapter
    assert isinstance(adapter, nn.Linear) and (adapter.in_features, adapter.out_features) == (5, 9)


def test_the_discriminator_learns_to_tell_them_apart():
    scene, data = method(weights={"ce": 1.0, "adversarial": 0.0, "discriminator": 1.0}), batch(12)
    update = Turns(method=scene, optimizer=sgd(1e-6), optimizers={"discriminator": sgd(0.5)}, **SETTINGS)
    reports = [update(data, NOW).report["discriminator/accuracy"].item() for _ in range(300)]
    assert reports[-1] == 1.0


def test_nothing_but_turns_will_do():
    for kind, extra in ((Joint, {}), (Peers, {"optimizers": {}})):
        with pytest.raises(UserError, match="Adversarial optimize opposing terms.* choose update=turns"):
            kind(method=method(), optimizer=sgd(), accumulate=1, gradient=None, **extra, **SETTINGS)


def test_refuses_a_missing_feature_or_weight():
    with pytest.raises(
        UserError, match="the discriminator cannot read method.role=stage5: the student has no feature .*'stage5'"
    ):
        method("stage5")
    with pytest.raises(UserError, match="method.weights needs a weight for 'discriminator'"):
        method(weights={"ce": 1.0, "adversarial": 1.0})
