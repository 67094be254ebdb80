"""DeepInversion's losses against loops in double precision, closed forms and gradients."""

import math

import pytest
import torch

from kdx.losses.features.deep_inversion import roughness, sameness, statistics_distance


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_roughness_sums_the_differences_of_neighbours():
    x = drawn(2, 3, 4, 5)
    total = 0.0
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        squares = 0.0
        for b, c, i, j in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
            if i + down < 4 and 0 <= j + right < 5:
                squares += float(x[b, c, i + down, j + right] - x[b, c, i, j]) ** 2
        total += math.sqrt(squares)
    assert float(roughness(x)) == pytest.approx(total)
    assert float(roughness(torch.full((1, 1, 3, 3), 0.7))) == 0
    assert torch.autograd.gradcheck(roughness, drawn(1, 2, 3, 3).requires_grad_())


def test_statistics_are_as_far_apart_as_their_vectors():
    found = [(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0])), (torch.tensor([1.0]), torch.tensor([6.0]))]
    known = [(torch.tensor([0.0, 4.0]), torch.tensor([1.0, 1.0])), (torch.tensor([1.0]), torch.tensor([4.0]))]
    assert float(statistics_distance(found, known)) == pytest.approx(5 + 0 + 0 + 2)
    assert float(statistics_distance(known, known)) == 0


def test_sameness_is_one_less_the_jensen_shannon_share_and_moves_both_sides():
    z, v = drawn(4, 3), drawn(4, 3, seed=1)
    for t in (1.0, 3.0):
        expected = []
        for a, b in zip(z.tolist(), v.tolist(), strict=True):
            p, q = ([math.exp(x / t) / sum(math.exp(y / t) for y in row) for x in row] for row in (a, b))
            m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            js = sum(x * math.log(x / y) + w * math.log(w / y) for x, w, y in zip(p, q, m, strict=True)) / 2
            expected.append(1 - js / math.log(2))
        torch.testing.assert_close(sameness(z, v, t), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(sameness(z, v, 3.0), sameness(v, z, 3.0))
    torch.testing.assert_close(sameness(z, z + 5, 3.0), torch.ones(4, dtype=torch.float64))
    far = 100 * torch.eye(2)
    assert float(sameness(far, far.flip(0), 1.0).max()) == pytest.approx(0, abs=1e-6)
    assert torch.autograd.gradcheck(lambda a, b: sameness(a, b, 3.0), (z.requires_grad_(), v.requires_grad_()))
