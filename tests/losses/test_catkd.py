import pytest
import torch
from law_case import CLASSES, SPEC, Headed
from loss_references import random_outputs
from torch import nn

from kdx.core.outputs import Shapes
from kdx.losses.features.catkd import CATKD, class_activation_maps, map_distance

STUDENT, TEACHER = Shapes((CLASSES,), {"final": (4, 4, 4)}), Shapes((CLASSES,), {"final": (6, 2, 2)})


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def test_the_mean_of_the_maps_is_the_logits():
    features, head = torch.randn(3, 4, 5, 5).double(), nn.Linear(4, CLASSES).double()
    maps = class_activation_maps(features, head.weight, head.bias)
    torch.testing.assert_close(maps.mean((2, 3)), head(features.mean((2, 3))))


def test_the_size_of_a_map_does_not_matter_its_place_does():
    mine, theirs = torch.randn(3, 5, 4, 4).double(), torch.randn(3, 5, 4, 4).double()
    expected = map_distance(mine, theirs, 2, normalize=True)
    torch.testing.assert_close(map_distance(7 * mine, theirs, 2, normalize=True), expected)
    assert not torch.allclose(map_distance(mine.flip(2), theirs, 2, normalize=True), expected)


def test_maps_as_they_are_differ_by_their_size():
    maps = torch.randn(3, 5, 4, 4).double()
    pooled = torch.nn.functional.avg_pool2d(maps, 2)
    rows = map_distance(3 * maps, maps, 2, normalize=False)
    torch.testing.assert_close(rows, 4 * pooled.square().mean((1, 2, 3)))


@pytest.mark.parametrize("side", [2, 4])
def test_normalised_maps_are_bounded_and_a_weight_for_one_form_is_none_for_the_other(side: int):
    """Unit vectors of n numbers differ by at most 4 / n in the mean; maps as they are grow with their square."""
    mine, theirs = (100 * torch.randn(3, 5, 8, 8).double() for _ in range(2))
    normalised = map_distance(mine, theirs, side, normalize=True)
    assert (normalised <= 4 / side**2).all()
    ratios = [map_distance(s * mine, s * theirs, side, normalize=False) / normalised for s in (1.0, 3.0)]
    torch.testing.assert_close(ratios[1], 9 * ratios[0])
    opposite = map_distance(mine, -mine, side, normalize=True)
    torch.testing.assert_close(opposite, torch.full((3,), 4 / side**2).double())


@pytest.mark.parametrize("bias", [False, True])
def test_the_classifiers_biases_stay_out_of_the_maps(bias: bool):
    shapes = Shapes((CLASSES,), {"final": (4, 4, 4)})
    student, teacher = (Headed(4, CLASSES, torch.float64) for _ in range(2))
    term = CATKD("final", "final", 2, normalize=False, bias=bias)
    term.attach(student, teacher)
    term.build(shapes, shapes, SPEC)
    outputs = random_outputs(3, CLASSES, dict(shapes.features))
    for net in (student, teacher):
        net.head.bias.data += 1.5
        moved = term(outputs, outputs, None, None)
        torch.testing.assert_close(moved, torch.full((3,), 1.5**2 if bias and net is student else 0.0).double())


def test_trains_the_students_classifier_and_owns_neither():
    student, teacher = (Headed(width, CLASSES, torch.float32) for width in (4, 6))
    teacher.requires_grad_(False)
    term = CATKD("final", "final", 2)
    term.attach(student, teacher)
    term.build(STUDENT, TEACHER, SPEC)
    assert not list(term.parameters()) and not term.state_dict()
    outputs = [random_outputs(3, CLASSES, dict(s.features), torch.float32) for s in (STUDENT, TEACHER)]
    term(*outputs, None, None).mean().backward()
    assert student.head.weight.grad is not None and student.head.weight.grad.abs().sum() > 0
    assert teacher.head.weight.grad is None


def test_refuses_a_map_that_is_not_the_classifiers_and_a_network_without_one():
    term = CATKD("final", "final", 2)
    term.attach(Headed(9, CLASSES, torch.float32), Headed(6, CLASSES, torch.float32))
    with pytest.raises(ValueError, match="reads 9 channels; 'final' has 4"):
        term.build(STUDENT, TEACHER, SPEC)
    term.attach(nn.Identity(), nn.Identity())
    with pytest.raises(ValueError, match="it has none"):
        term.build(STUDENT, TEACHER, SPEC)
