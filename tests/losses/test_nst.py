"""NST: a distance between sets of channels."""

import pytest
import torch

from kdx.core.outputs import Shapes
from kdx.losses.features.nst import NST, neuron_selectivity
from kdx.tasks.classes import image_classes


def test_order_scale_and_sign_of_channels_do_not_matter():
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 6, 4, 4).double(), torch.randn(3, 5, 4, 4).double()
    scale = torch.tensor([-2, -1, 0.5, 1, 2, 3], dtype=torch.float64)[:, None, None]
    expected = neuron_selectivity(student, teacher)
    torch.testing.assert_close(neuron_selectivity((scale * student).flip(1), teacher), expected)


def test_repeating_every_channel_changes_nothing():
    features = torch.randn(3, 4, 5, 5).double()
    torch.testing.assert_close(neuron_selectivity(features.repeat(1, 3, 1, 1), features), torch.zeros(3).double())


def test_channels_at_right_angles():
    # one channel each: <t,t>^2 + <s,s>^2 - 2 <s,t>^2
    student, teacher = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    student[0, 0, 0, 0] = teacher[0, 0, 1, 1] = 5.0
    assert neuron_selectivity(student, teacher).item() == 2.0


def test_is_never_negative():
    torch.manual_seed(0)
    assert neuron_selectivity(torch.randn(50, 3, 4, 4).double(), torch.randn(50, 7, 4, 4).double()).min() >= 0


def test_vectors_are_refused():
    shapes = Shapes((10,), {"a": (4,)})
    with pytest.raises(ValueError, match="NST reads feature maps"):
        NST(["a"]).build(shapes, shapes, image_classes(10, (3, 8, 8), 1, (0.0,), (1.0,)))


@pytest.mark.parametrize(("channels", "side"), [((3, 5), 4), ((12, 9), 2), ((4, 5), 2)])
def test_more_channels_than_positions_or_fewer_is_the_same_equation(channels, side):
    torch.manual_seed(0)
    student, teacher = (torch.randn(2, c, side, side).double().requires_grad_() for c in channels)
    with torch.no_grad():
        student[0, 1] = 0.0  # a dead channel

    def unit_maps(features):
        return [[c.flatten() / c.norm() if c.norm() > 0 else c.flatten() for c in row] for row in features]

    def kernel(left, right):
        return sum((x @ y) ** 2 for x in left for y in right) / (len(left) * len(right))

    expected = torch.stack(
        [
            kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)
            for s, t in zip(unit_maps(student), unit_maps(teacher.detach()), strict=True)
        ]
    )
    found = neuron_selectivity(student, teacher)
    torch.testing.assert_close(found, expected)
    alive = student.detach().flatten(2).norm(dim=2) > 0
    slopes = [torch.autograd.grad(value.sum(), student)[0][alive] for value in (found, expected)]
    torch.testing.assert_close(*slopes)
