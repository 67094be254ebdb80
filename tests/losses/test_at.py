"""Attention transfer in closed form."""

import pytest
import torch

from kdx.core.outputs import Shapes
from kdx.losses.features.at import AT, attention, attention_transfer, to_common_size
from kdx.tasks.classes import image_classes

SPEC = image_classes(10, (3, 32, 32), 1, (0.0,) * 3, (1.0,) * 3)


def corner(channels: int, row: int, column: int) -> torch.Tensor:
    features = torch.zeros(1, channels, 2, 2)
    features[:, :, row, column] = 3.0
    return features


def test_looking_at_different_places_costs_2_over_the_positions():
    assert attention_transfer(corner(3, 0, 0), corner(5, 1, 1), 2.0).item() == pytest.approx(2 / 4)
    assert attention_transfer(corner(3, 0, 0), corner(5, 0, 0), 2.0).item() == 0.0


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_scale_sign_and_order_of_channels_do_not_matter(power: float):
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 6, 5, 5).double(), torch.randn(4, 3, 5, 5).double()
    expected = attention_transfer(student, teacher, power)
    torch.testing.assert_close(attention_transfer(-7 * student.flip(1), 0.1 * teacher, power), expected)


def test_attention_has_length_1_unless_nothing_is_active():
    features = torch.randn(3, 4, 5, 5)
    features[1] = 0
    torch.testing.assert_close(attention(features, 2.0).norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))


def test_the_larger_map_is_pooled_down_on_either_side():
    torch.manual_seed(0)
    large, small = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    pooled = large.view(2, 3, 4, 2, 4, 2).mean((3, 5))
    expected = attention_transfer(pooled, small, 2.0)
    torch.testing.assert_close(attention_transfer(large, small, 2.0), expected)
    torch.testing.assert_close(attention_transfer(small, large, 2.0), expected)
    assert to_common_size(torch.randn(1, 1, 9, 2), torch.randn(1, 1, 4, 5))[0].shape == (1, 1, 4, 2)


def test_a_mapping_pairs_different_roles():
    term = AT({"stage1": "block2"}, 2.0)
    assert (term.student_roles(), term.teacher_roles()) == (("stage1",), ("block2",))


@pytest.mark.parametrize("roles", ["stage1", [], {}])
def test_roles_must_be_a_list_or_a_mapping(roles: object):
    with pytest.raises(ValueError, match="a list of roles or a mapping"):
        AT(roles, 2.0)  # type: ignore[arg-type]


def test_vectors_are_refused():
    maps, vectors = Shapes((10,), {"a": (4, 8, 8)}), Shapes((10,), {"a": (4,)})
    with pytest.raises(ValueError, match=r"the teacher's 'a' is \[B, 4\]"):
        AT(["a"], 2.0).build(maps, vectors, SPEC)
    with pytest.raises(ValueError, match=r"the student's 'a' is \[B, 4\]"):
        AT(["a"], 2.0).build(vectors, maps, SPEC)
