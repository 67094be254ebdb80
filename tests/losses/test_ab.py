import pytest
import torch
from law_case import CLASSES, SPEC
from torch import nn

from kdx.core.outputs import Shapes
from kdx.losses.features.ab import AB, activation_boundaries


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(2.0, 5.0, 0.0), (0.5, 5.0, 0.25), (-1.0, 5.0, 4.0), (-2.0, -5.0, 0.0), (-0.5, -5.0, 0.25), (1.0, -5.0, 4.0)],
)
def test_asks_for_the_side_and_a_margin(student: float, teacher: float, expected: float):
    s, t = (torch.full((1, 1, 1, 1), x) for x in (student, teacher))
    assert activation_boundaries(s, t, 1.0).tolist() == [expected]


def test_the_teachers_size_does_not_matter_its_sign_does():
    s, t = torch.randn(3, 2, 4, 4).double(), torch.randn(3, 2, 4, 4).double()
    assert torch.equal(activation_boundaries(s, t, 1.0), activation_boundaries(s, 100 * t, 1.0))
    assert not torch.equal(activation_boundaries(s, t, 1.0), activation_boundaries(s, -t, 1.0))


def test_equal_shapes_need_no_connector():
    shapes = {"a": (3, 4, 4), "b": (4, 4, 4)}
    term = AB({"a": "a", "b": "b"}, 1.0)
    term.build(Shapes((CLASSES,), shapes), Shapes((CLASSES,), {"a": (3, 4, 4), "b": (6, 2, 2)}), SPEC)
    assert isinstance(term.connectors[0], nn.Identity)
    assert [type(layer) for layer in term.connectors[1]] == [nn.Conv2d, nn.BatchNorm2d]
    assert term.connectors[1](torch.randn(2, 4, 4, 4)).shape == (2, 6, 2, 2)
