"""Cue conflicts against loops over frequencies and pairs; Grad-CAM against finite differences."""

import cmath
import math

import pytest
import torch

from kdx.metrics.cues import conflicts, style_swapped
from kdx.metrics.localisation import grad_cam, map_cosine


def test_a_swapped_image_has_the_phases_of_one_and_the_amplitudes_of_the_other():
    g = torch.Generator().manual_seed(0)
    # values near one half stay within [0, 1], so that clamping does nothing
    shapes, textures = (0.45 + 0.1 * torch.rand(1, 1, 4, 5, generator=g, dtype=torch.float64) for _ in range(2))

    def spectrum(image: torch.Tensor, u: int, v: int) -> complex:
        rows = image[0, 0].tolist()
        turns = [(y * u / 4 + x * v / 5, rows[y][x]) for y in range(4) for x in range(5)]
        return sum(value * cmath.exp(-2j * math.pi * turn) for turn, value in turns)

    found = style_swapped(shapes, textures)
    for u in range(4):
        for v in range(5):
            wanted = cmath.rect(abs(spectrum(textures, u, v)), cmath.phase(spectrum(shapes, u, v)))
            assert abs(spectrum(found, u, v) - wanted) < 1e-9
    far = style_swapped(torch.rand(3, 2, 8, 8), torch.rand(3, 2, 8, 8))
    assert 0 <= float(far.min()) and float(far.max()) <= 1


def test_partners_are_uniform_over_the_examples_of_other_classes():
    labels = torch.tensor([2, 0, 1, 0, 2, 2])
    g, counts = torch.Generator().manual_seed(0), torch.zeros(6, 6)
    for _ in range(3000):
        counts[torch.arange(6), conflicts(labels, g)] += 1
    for i in range(6):
        others = [j for j in range(6) if labels[j] != labels[i]]
        for j in range(6):
            wanted = 3000 / len(others) if j in others else 0
            assert abs(float(counts[i, j]) - wanted) <= 5 * wanted**0.5
    with pytest.raises(ValueError, match="at least two classes"):
        conflicts(torch.tensor([1, 1]), g)


def test_grad_cam_weighs_channels_by_finite_differences():
    g = torch.Generator().manual_seed(1)
    feature = torch.randn(2, 3, 2, 2, generator=g, dtype=torch.float64)

    def score(x: torch.Tensor) -> torch.Tensor:
        return (x.sin() * x).sum((1, 2, 3)) + x[:, 0].square().sum((1, 2))

    tracked = feature.clone().requires_grad_()
    found = grad_cam(tracked, score(tracked), (2, 2))
    for n in range(2):
        weights = []
        for c in range(3):
            total = 0.0
            for y in range(2):
                for x in range(2):
                    up, down = feature.clone(), feature.clone()
                    up[n, c, y, x] += 1e-5
                    down[n, c, y, x] -= 1e-5
                    total += float(score(up)[n] - score(down)[n]) / 2e-5
            weights.append(total / 4)
        for y in range(2):
            for x in range(2):
                value = max(0.0, sum(w * float(feature[n, c, y, x]) for c, w in enumerate(weights)))
                assert float(found[n, y, x]) == pytest.approx(value, abs=1e-8)
    assert grad_cam(tracked, score(tracked), (6, 4)).shape == (2, 6, 4)


def test_the_cosine_of_maps_ignores_their_scale_and_is_zero_for_an_empty_map():
    maps = torch.rand(3, 4, 4, dtype=torch.float64)
    assert map_cosine(maps, 7 * maps).tolist() == pytest.approx([1, 1, 1])
    assert map_cosine(maps, 0 * maps).tolist() == [0, 0, 0]
