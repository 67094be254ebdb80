"""FitNets: the adapter for each ratio of sizes."""

import pytest
import torch
from torch import nn

from kdx.core.outputs import Shapes
from kdx.losses.features.fitnet import FitNet, hint, map_adapter
from kdx.tasks.classes import image_classes

SPEC = image_classes(10, (3, 32, 32), 1, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "kernel"),
    [
        ((4, 8, 8), (6, 8, 8), nn.Conv2d, (1, 1)),
        ((4, 16, 16), (6, 8, 8), nn.Conv2d, (3, 3)),
        ((4, 8, 8), (6, 16, 16), nn.ConvTranspose2d, (4, 4)),
        ((4, 14, 14), (6, 8, 8), nn.Conv2d, (7, 7)),
        ((4, 7, 7), (6, 4, 4), nn.Conv2d, (4, 4)),
        ((4, 10, 8), (6, 8, 8), nn.Conv2d, (3, 1)),
        ((4, 16, 4), (6, 8, 2), nn.Conv2d, (3, 3)),
    ],
)
def test_the_adapter_lands_on_the_teachers_shape(student: tuple, teacher: tuple, kind: type, kernel: tuple):
    adapter = map_adapter(student, teacher)
    assert type(adapter[0]) is kind
    assert adapter[0].kernel_size == kernel
    assert isinstance(adapter[1], nn.BatchNorm2d)
    assert adapter(torch.randn(2, *student)).shape == (2, *teacher)
    assert adapter(torch.randn(2, *student)).min() == 0


@pytest.mark.parametrize(
    ("student", "teacher"), [((4, 7, 7), (6, 8, 8)), ((4, 4, 4), (6, 16, 16)), ((4, 16, 4), (6, 8, 8))]
)
def test_other_enlargements_resample_before_a_pointwise_convolution(student: tuple, teacher: tuple):
    adapter = map_adapter(student, teacher).eval()
    x = torch.randn(2, *student, generator=torch.Generator().manual_seed(0))
    assert adapter(x).shape == (2, *teacher)
    enlarged = torch.nn.functional.interpolate(x, teacher[1:], mode="bilinear")
    conv = [m for m in adapter.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(conv) == 1 and conv[0].kernel_size == (1, 1)
    torch.testing.assert_close(adapter[0](x), conv[0](enlarged))


def test_vectors_get_a_linear_layer():
    term = FitNet("pooled", "pooled")
    term.build(Shapes((10,), {"pooled": (4,)}), Shapes((10,), {"pooled": (7,)}), SPEC)
    assert isinstance(term.adapter, nn.Linear)
    assert term.adapter(torch.randn(3, 4)).shape == (3, 7)


@pytest.mark.parametrize(("student", "teacher"), [((4, 8), (6, 8)), ((4,), (6, 8, 8)), ((4, 8, 8), (6,)), ((), ())])
def test_tokens_and_unlike_ranks_are_refused(student: tuple, teacher: tuple):
    term = FitNet("a", "b")
    with pytest.raises(ValueError, match="a map with a map or a vector with a vector"):
        term.build(Shapes((10,), {"a": student}), Shapes((10,), {"b": teacher}), SPEC)


def test_the_adapter_is_trained_moved_and_saved_with_the_term():
    term = FitNet("a", "b")
    term.build(Shapes((10,), {"a": (4, 8, 8)}), Shapes((10,), {"b": (6, 8, 8)}), SPEC)
    assert {name for name, _ in term.named_parameters()} <= set(term.state_dict())
    assert sum(p.numel() for p in term.parameters()) == 4 * 6 + 6 + 2 * 6


def test_a_shift_by_one_costs_one():
    features = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(hint(features + 1, features), torch.ones(3))
