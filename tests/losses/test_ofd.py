import math

import pytest
import torch
from feature_references import gaussian_margin
from law_case import CLASSES, SPEC
from torch import nn

from kdx.core.outputs import Shapes
from kdx.losses.features.ofd import OFD, margins, partial_distance


def norm_of(weights: list[float], biases: list[float]) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(weights)).double()
    norm.weight.data, norm.bias.data = (
        torch.tensor(weights, dtype=torch.float64),
        torch.tensor(biases, dtype=torch.float64),
    )
    return norm


def test_margins_are_the_mean_of_the_negative_values():
    weights, biases = [1.0, -0.5, 2.0], [0.0, 0.4, -1.0]
    drawn = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0)).double()
    for margin, weight, bias in zip(margins(norm_of(weights, biases)), weights, biases, strict=True):
        values = weight * drawn + bias
        assert float(margin) == pytest.approx(float(values[values < 0].mean()), abs=3e-3)
        assert float(margin) == pytest.approx(gaussian_margin(weight, bias), rel=1e-9)


def test_the_margin_of_a_centred_channel_has_a_closed_form():
    assert float(margins(norm_of([3.0], [0.0]))) == pytest.approx(-3 * math.sqrt(2 / math.pi))


def test_a_channel_that_is_hardly_ever_negative_has_three_deviations():
    assert margins(norm_of([1.0, 0.5], [4.0, 10.0])).tolist() == [-3.0, -1.5]


def test_dead_channels_have_finite_margins():
    assert margins(norm_of([0.0, 0.0, 0.0], [1.0, -2.0, 0.0])).tolist() == [0.0, -2.0, 0.0]


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (1.0, 3.0, 4.0),  # an active target is met from below
        (5.0, 3.0, 4.0),  # and from above
        (-2.0, -0.5, 0.0),  # below a target between margin and 0: nothing to do
        (0.5, -0.5, 1.0),
        (-3.0, -9.0, 0.0),  # both beyond the margin
        (0.0, -9.0, 1.0),  # the target is the margin, not the value beyond it
    ],
)
def test_counts_only_differences_that_can_matter(student: float, teacher: float, expected: float):
    s, t = (torch.full((1, 1, 1, 1), x, dtype=torch.float64) for x in (student, teacher))
    s.requires_grad_()
    rows = partial_distance(s, t, torch.tensor([-1.0]))
    assert rows.tolist() == [pytest.approx(expected)]
    (gradient,) = torch.autograd.grad(rows.sum(), s)
    target = max(teacher, -1.0)
    assert gradient.item() == pytest.approx(2 * (student - target) if expected else 0.0)


def test_refuses_a_teacher_that_names_no_batch_norm():
    term = OFD(["stage1"])
    term.attach(nn.Identity(), nn.Identity())
    shapes = Shapes((CLASSES,), {"stage1": (3, 4, 4)})
    with pytest.raises(ValueError, match="names none there"):
        term.build(shapes, shapes, SPEC)


def test_margins_come_from_the_teacher_again_and_are_not_saved():
    class Teacher(nn.Module):
        def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
            return {"stage1": norm_of([1.0, 2.0, 3.0], [0.0] * 3)}

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Teacher()

    term = OFD(["stage1"])
    term.attach(nn.Identity(), Wrapper())
    shapes = Shapes((CLASSES,), {"stage1": (3, 4, 4)})
    term.build(shapes, shapes, SPEC)
    assert term.get_buffer("margin0").tolist() == pytest.approx([-x * math.sqrt(2 / math.pi) for x in (1, 2, 3)])
    assert not [k for k in term.state_dict() if "margin" in k]
    assert not [n for n, _ in term.named_parameters() if "norm" in n]
