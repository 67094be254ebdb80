"""Linear CKA against its definition by Gram matrices, and its invariances."""

import math

import pytest
import torch

from kdx.metrics.cka import CKA, as_vectors, linear_cka


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_gram_matrices(x: torch.Tensor, y: torch.Tensor) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with the centring matrix written out."""
    x, y, n = x.double(), y.double(), len(x)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    k, other = x @ x.T, y @ y.T

    def hsic(a: torch.Tensor, b: torch.Tensor) -> float:
        return torch.trace(a @ centre @ b @ centre).item()

    return hsic(k, other) / math.sqrt(hsic(k, k) * hsic(other, other))


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
    maps, tokens = torch.randn(20, 3, 4, 5), torch.randn(20, 6, 7)
    assert torch.allclose(as_vectors(maps), maps.double().flatten(2).mean(2))
    assert torch.allclose(as_vectors(tokens), tokens.double().mean(1))
    pooled = maps.double().flatten(2).mean(2), tokens.double().mean(1)
    assert linear_cka(maps, tokens) == pytest.approx(by_gram_matrices(*pooled), rel=1e-9)


def test_constant_features_have_no_similarity():
    assert math.isnan(linear_cka(torch.full((10, 3), 0.1), torch.randn(10, 2)))


def test_other_ranks_are_refused():
    with pytest.raises(ValueError, match="2 to 4 axes"):
        linear_cka(torch.randn(4), torch.randn(4))
