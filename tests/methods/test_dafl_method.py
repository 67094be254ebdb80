"""Generator and student: whose turn moves whom, and that no data is read."""

from dataclasses import replace

import pytest
import torch
from test_adversarial import SETTINGS, flat, sgd

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.engine.optim.multi_optimizer import Turns
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.dafl import activation, information, one_hot
from kdx.losses.logits.dkd import DKD
from kdx.losses.logits.kd import KD, kl_divergence
from kdx.methods.generator_distill import GeneratorDistill
from kdx.models.generator import ConvGenerator
from kdx.models.small import MLP
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import image_classes

SPEC = image_classes(3, (2, 4, 8), 32, (0.0, 0.0), (1.0, 1.0), torch.arange(32) % 3)
FACTS = {"dropout": 0.0, "activation": "tanh", "num_classes": 3, "input_shape": (2, 4, 8)}
NOW = Progress(4, 8, 8)
WEIGHTS = {"kd": 1.0, "one_hot": 0.7, "activation": 0.2, "information": 3.0}


def method(**changed) -> GeneratorDistill:
    torch.manual_seed(0)
    student, teacher = MLP(hidden=(5,), **FACTS), Frozen(MLP(hidden=(9,), **FACTS), None, None)
    given = {
        "terms": {"kd": KD(temperature=1.0, reduction="batchmean")},
        "weights": WEIGHTS,
        "temperature": None,
        "generator": ConvGenerator(latent=6, widths=(4, 3), input_shape=(2, 4, 8)),
        "role": "pooled",
    }
    return GeneratorDistill(student=student, teacher=teacher, spec=SPEC, **given | changed).double().train()


def batch(size: int = 7) -> Batch:
    return Batch.of_classes(torch.zeros(size, 2, 4, 8, dtype=torch.float64), torch.arange(size) % 3, torch.arange(size))


@pytest.fixture(autouse=True)
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_both_turns_are_steps_along_gradients_taken_by_hand_on_the_same_images():
    scene, by_hand = method(), method()
    torch.manual_seed(3)
    Turns(method=scene, optimizer=sgd(), optimizers={"generator": sgd(0.3)}, **SETTINGS)(batch(), NOW)
    torch.manual_seed(3)
    images = by_hand.generator(torch.randn(7, 6))
    taught = by_hand.teacher.net(images)
    loss = 0.7 * one_hot(taught.logits).mean() + 0.2 * activation(taught.feature("pooled")).mean()
    loss = loss + 3.0 * information(taught.logits)
    student = kl_divergence(by_hand.student(images.detach()).logits, taught.logits, 1.0, "batchmean").mean()
    for module, value, rate in ((by_hand.generator, loss, 0.3), (by_hand.student, student, 0.1)):
        parameters = list(module.parameters())
        for p, g in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
            p.data -= 1.05 * rate * g
    assert torch.allclose(flat(scene.generator), flat(by_hand.generator), rtol=1e-9)
    assert torch.allclose(flat(scene.student), flat(by_hand.student), rtol=1e-9)


def test_of_a_batch_nothing_is_read_but_its_size():
    scenes = method(), method()
    broken = replace(batch(), inputs=torch.full((7, 2, 4, 8), torch.nan)).with_targets(labels=torch.full((7,), 99))
    for scene, data in zip(scenes, (batch(), broken), strict=True):
        torch.manual_seed(1)
        step = Turns(method=scene, optimizer=sgd(), optimizers={}, **SETTINGS)(data, NOW)
        assert step.outputs is None and all(t.isfinite() for t in step.terms.values())
    assert all(torch.equal(a, b) for a, b in zip(*(s.state_dict().values() for s in scenes), strict=True))


def test_images_are_normalised_as_data_are():
    images = method().generator(torch.randn(500, 6))
    assert images.shape == (500, 2, 4, 8)
    assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(2), atol=1e-9)
    assert torch.allclose(images.var((0, 2, 3), unbiased=False), torch.ones(2), atol=1e-2)


def test_what_cannot_be_is_reported_in_a_sentence():
    with pytest.raises(UserError, match="method.weights needs a weight for 'activation'"):
        method(weights={"kd": 1.0, "one_hot": 1.0, "information": 1.0})
    with pytest.raises(UserError, match="method.role: the teacher has no feature .*'stage7'"):
        method(role="stage7")
    with pytest.raises(UserError, match="DKD reads the label of every example"):
        dkd = DKD(target_weight=1.0, nontarget_weight=1.0, temperature=1.0)
        method(terms={"dkd": dkd}, weights={**{k: v for k, v in WEIGHTS.items() if k != "kd"}, "dkd": 1.0})
    with pytest.raises(ValueError, match="multiples of 4"):
        ConvGenerator(latent=6, widths=(4, 3), input_shape=(1, 6, 8))
    # nothing to learn from labels, and nothing broken
    terms = {"kd": KD(temperature=1.0, reduction="batchmean"), "ce": CrossEntropy(label_smoothing=0.0)}
    scene = method(terms=terms, weights={**WEIGHTS, "ce": 1.0})
    assert [t.step for t in scene.turns(batch(), NOW)][1].terms["ce"].item() == 0
