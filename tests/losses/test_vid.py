"""VID: a likelihood whose variances train."""

import math

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.features.vid import VID, gaussian_nll
from kdx.tasks.classes import image_classes

SPEC = image_classes(10, (3, 8, 8), 1, (0.0,), (1.0,))


def built(variance: float) -> VID:
    term = VID({"a": "b"}, variance)
    term.build(Shapes((10,), {"a": (3, 8, 8)}), Shapes((10,), {"b": (5, 4, 4)}), SPEC)
    return term


def test_equals_the_normal_distribution_up_to_its_constant():
    torch.manual_seed(0)
    mean, value, variance = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.rand(4) + 0.1
    normal = torch.distributions.Normal(mean, variance.sqrt()[:, None, None].expand_as(mean))
    expected = -normal.log_prob(value).flatten(1).mean(1) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(gaussian_nll(mean, value, variance), expected)


@pytest.mark.parametrize("variance", [0.01, 1.0, 5.0, 50.0])
def test_the_variance_begins_where_it_is_told(variance: float):
    term = built(variance)
    outputs = Outputs(torch.zeros(1, 10), {"a": torch.randn(1, 3, 8, 8), "b": torch.randn(1, 5, 4, 4)})
    index = torch.zeros(1, dtype=torch.long)
    rows = term(outputs, outputs, Batch.of_classes(index, index, index), Progress(0, 1, 1))
    mean = term.regressors[0].mean(torch.nn.functional.avg_pool2d(outputs.features["a"], 2))
    torch.testing.assert_close(rows, gaussian_nll(mean, outputs.features["b"], torch.full((5,), variance)))


def test_the_variances_are_parameters_and_find_the_mean_squared_error():
    torch.manual_seed(0)
    term = built(5.0)
    raw = [p for name, p in term.named_parameters() if name.endswith("raw_variance")]
    assert len(raw) == 1
    outputs = Outputs(torch.zeros(64, 10), {"a": torch.randn(64, 3, 8, 8), "b": 0.5 * torch.randn(64, 5, 4, 4)})
    index = torch.zeros(64, dtype=torch.long)
    optimizer = torch.optim.Adam(raw, lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        term(outputs, outputs, Batch.of_classes(index, index, index), Progress(0, 1, 1)).mean().backward()
        optimizer.step()
    mean = term.regressors[0].mean(torch.nn.functional.avg_pool2d(outputs.features["a"], 2))
    expected = (mean - outputs.features["b"]).square().mean((0, 2, 3))
    torch.testing.assert_close(torch.nn.functional.softplus(raw[0]), expected, rtol=1e-2, atol=1e-3)


def test_the_means_are_predicted_with_or_without_biases():
    shapes = Shapes((10,), {"a": (3, 8, 8)}), Shapes((10,), {"a": (5, 4, 4)})
    for bias in (False, True):
        term = VID(["a"], 5.0, bias=bias)
        term.build(*shapes, SPEC)
        convolutions = [m for m in term.modules() if isinstance(m, torch.nn.Conv2d)]
        assert len(convolutions) == 3 and all((m.bias is not None) == bias for m in convolutions)


def test_a_variance_below_the_least_is_refused():
    with pytest.raises(ValueError, match="must be above 1e-05, got 1e-06"):
        VID(["a"], 1e-6)


def test_vectors_are_refused():
    shapes = Shapes((10,), {"a": (4,)})
    with pytest.raises(ValueError, match="VID reads feature maps"):
        VID(["a"], 5.0).build(shapes, shapes, SPEC)
