"""Linear CKA against its definition by Gram matrices, and its invariances."""

import itertools
import math

import pytest
import torch

from kdx.metrics.cka import CKA, as_vectors, linear_cka


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_gram_matrices(x: torch.Tensor, y: torch.Tensor) -> float:
    """The unbiased HSIC by its sum over all tuples of distinct examples: kernels are centred by the others alone."""
    k, other = (features.double() @ features.double().T for features in (x, y))

    def hsic(a: torch.Tensor, b: torch.Tensor) -> float:
        n = len(a)
        a, b = a - torch.diag(a.diag()), b - torch.diag(b.diag())
        ones = torch.ones(n, dtype=torch.float64)
        first, second = torch.trace(a @ b), (ones @ a @ ones) * (ones @ b @ ones) / ((n - 1) * (n - 2))
        return ((first + second - 2 / (n - 2) * (ones @ a @ b @ ones)) / (n * (n - 3))).item()

    return hsic(k, other) / math.sqrt(hsic(k, k) * hsic(other, other))


def test_the_estimator_is_the_mean_over_all_tuples_of_distinct_examples():
    x, y = torch.randn(6, 2, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)

    def by_tuples(one: torch.Tensor, two: torch.Tensor) -> float:
        a, b = one @ one.T, two @ two.T
        terms = [
            (a[i, j] * (b[i, j] + b[k, m] - 2 * b[i, k])).item() for i, j, k, m in itertools.permutations(range(6), 4)
        ]
        return sum(terms) / len(terms)

    value = by_tuples(x, y) / math.sqrt(by_tuples(x, x) * by_tuples(y, y))
    assert linear_cka(x, y) == pytest.approx(min(1.0, max(0.0, value)), abs=1e-10)


@pytest.mark.parametrize("count", [200, 797])
def test_independent_features_have_none_on_average(count: int):
    draws = [linear_cka(torch.randn(count, 64), torch.randn(count, 96)) for _ in range(8)]
    assert sum(draws) / 8 < 0.01  # the biased estimator gives .11 at 797 examples


def test_the_value_is_no_less_than_0_and_needs_four_examples():
    values = [linear_cka(torch.randn(5, 4), torch.randn(5, 4)) for _ in range(30)]
    assert all(0 <= v <= 1 or math.isnan(v) for v in values) and min(values) == 0.0
    assert math.isnan(linear_cka(torch.randn(3, 2), torch.randn(3, 2)))


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(60, 8) + 5
    return x, torch.cat([x[:, :4] + torch.randn(60, 4), torch.randn(60, 1)], 1)


def test_equals_the_definition(features: tuple[torch.Tensor, torch.Tensor]):
    assert linear_cka(*features) == pytest.approx(by_gram_matrices(*features), rel=1e-10)


def test_is_symmetric_and_1_with_itself(features: tuple[torch.Tensor, torch.Tensor]):
    x, y = features
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), rel=1e-12)
    assert linear_cka(x, x) == pytest.approx(1.0, rel=1e-12)


def test_invariant_to_rotation_scale_and_shift(features: tuple[torch.Tensor, torch.Tensor]):
    x, y = (f.double() for f in features)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    assert linear_cka(-3.0 * x @ rotation + 7, y) == pytest.approx(linear_cka(x, y), rel=1e-9)


def test_not_invariant_to_any_linear_map(features: tuple[torch.Tensor, torch.Tensor]):
    x, _ = features
    assert linear_cka(x, x * torch.tensor([9.0] + [1.0] * 7)) < 0.9


def test_orthogonal_features_have_none():
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert linear_cka(x, y) == 0.0


@pytest.mark.parametrize("size", [1, 7, 60])
def test_streaming_equals_the_whole(features: tuple[torch.Tensor, torch.Tensor], size: int):
    metric = CKA()
    for x, y in zip(*(f.split(size) for f in features), strict=True):
        metric.update(x, y)
    assert metric.compute()["cka"] == pytest.approx(by_gram_matrices(*features), rel=1e-9)


def test_maps_and_tokens_are_averaged_first():
    maps = torch.randn(20, 3, 4, 5)
    tokens = maps.flatten(2).mT[:, :6] + 0.1 * torch.randn(20, 6, 3)
    assert torch.allclose(as_vectors(maps), maps.double().flatten(2).mean(2))
    assert torch.allclose(as_vectors(tokens), tokens.double().mean(1))
    pooled = maps.double().flatten(2).mean(2), tokens.double().mean(1)
    assert linear_cka(maps, tokens) == pytest.approx(by_gram_matrices(*pooled), rel=1e-9)


def test_constant_features_have_no_similarity():
    assert math.isnan(linear_cka(torch.full((10, 3), 0.1), torch.randn(10, 2)))


def test_other_ranks_are_refused():
    with pytest.raises(ValueError, match="2 to 4 axes"):
        linear_cka(torch.randn(4), torch.randn(4))
