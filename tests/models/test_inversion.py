"""DeepInversion: properties of the images, determinism, and networks that it rejects."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.losses.features.deep_inversion import roughness, sameness, statistics_distance
from kdx.models.inversion import DeepInversion, batch_statistics, running_statistics
from kdx.models.small import MLP, SmallCNN
from kdx.models.teachers.frozen import Frozen

SHAPE = (1, 8, 8)
FACTS = {"num_classes": 4, "input_shape": SHAPE, "dropout": 0.0}
RECIPE = DeepInversion(
    steps=60, lr=0.1, statistics=1.0, smooth=0.001, small=0.0, compete=0.0, temperature=3.0, jitter=1
)
LABELS = torch.arange(12) % 4


def network(seed: int = 0) -> SmallCNN:
    torch.manual_seed(seed)
    net = SmallCNN(widths=(4, 6), hidden=8, **FACTS)
    with torch.no_grad():
        net.train()(2 * torch.randn(64, *SHAPE) + 1)  # batch norms with running statistics
        net.fc.weight *= 20  # well-separated classes
    return net.eval().requires_grad_(False)


def invert(recipe=RECIPE, teacher=None, student=None, seed: int = 5) -> torch.Tensor:
    return recipe(teacher or network(), student, LABELS, SHAPE, torch.Generator().manual_seed(seed))


def test_statistics_are_those_that_each_batch_norm_is_given():
    net, x = network(), torch.randn(10, *SHAPE)
    with batch_statistics(net) as found:
        net(x)
    first = net.convs[0][0](x)
    second = net.convs[1][0](nn.functional.max_pool2d(net.convs[0](x).relu(), 2))
    for (mean, var), maps in zip(found, (first, second), strict=True):
        torch.testing.assert_close(mean, maps.mean((0, 2, 3)))
        torch.testing.assert_close(var, maps.var((0, 2, 3), unbiased=False))
    assert not any(m._forward_pre_hooks for m in net.modules())
    # in training mode a batch norm would update its statistics by the measured ones
    (mean, var), norm = running_statistics(net)[0], net.convs[0][1]
    assert mean is norm.running_mean and var is norm.running_var


def test_they_are_of_their_class_and_closer_to_the_statistics_than_where_they_began():
    net = network()
    images = invert(teacher=net)
    start = torch.randn(len(LABELS), *SHAPE, generator=torch.Generator().manual_seed(5))

    def distance(x: torch.Tensor) -> float:
        with batch_statistics(net) as found:
            net(x)
        return float(statistics_distance(found, running_statistics(net)))

    assert images.shape == start.shape and not images.requires_grad
    loss = [float(nn.functional.cross_entropy(net(x).logits, LABELS)) for x in (images, start)]
    assert loss[0] < 0.9 * loss[1]
    assert distance(images) < distance(start)
    assert distance(images) < 0.8 * distance(invert(replace(RECIPE, statistics=0.0), net))
    assert float(roughness(invert(replace(RECIPE, smooth=1.0)))) < 0.8 * float(roughness(images))
    assert float(invert(replace(RECIPE, small=10.0)).norm()) < 0.8 * float(images.norm())


def test_competing_lowers_the_agreement_with_the_student():
    teacher, student = network(), network(1)
    before, after = (invert(replace(RECIPE, compete=c), teacher, student) for c in (0.0, 20.0))
    agree = [float(sameness(student(x).logits, teacher(x).logits, 3.0).mean()) for x in (before, after)]
    assert agree[1] < agree[0]
    assert torch.equal(invert(teacher=teacher, student=student), invert(teacher=teacher))  # a weight of 0


def test_a_generator_decides_them_and_the_network_stays():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    one = invert(teacher=net)
    torch.manual_seed(99)
    assert torch.equal(invert(teacher=net), one) and not torch.equal(invert(teacher=net, seed=6), one)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    frozen = Frozen(net, None, None)
    with frozen.through_inputs():
        assert torch.equal(invert(teacher=frozen), one)


def test_a_network_without_batch_norms_is_refused_in_a_sentence():
    mlp = MLP(hidden=(5,), activation="relu", **FACTS)
    with pytest.raises(UserError, match="needs batch norms with running statistics, and a MLP has none") as found:
        invert(teacher=mlp)
    assert "\n" not in str(found.value)
