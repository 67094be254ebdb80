"""Rank correlation of cheap and full measurements, against scipy and with ties."""

import math
from random import Random

import pytest
from scipy.stats import kendalltau

from kdx.studies.distillers.rank import DRAWS, interval, kendall


@pytest.mark.parametrize("levels", [3, 5, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_tau_is_scipys_with_ties_and_without(seed: int, levels: int):
    rng = Random(seed)
    pairs = [(float(rng.randrange(levels)), float(rng.randrange(levels))) for _ in range(12)]
    assert kendall(pairs) == pytest.approx(kendalltau(*zip(*pairs, strict=True)).statistic, abs=1e-12)


@pytest.mark.parametrize("pairs", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)]])
def test_tau_of_nothing_to_compare_is_unknown(pairs):
    assert math.isnan(kendall(pairs))


def test_an_interval_is_that_of_means_over_groups_whose_items_are_drawn_again():
    ordered = [(float(i), float(i)) for i in range(6)]
    assert interval([ordered], 0) == (1.0, 1.0)
    against = [(x, -y) for x, y in ordered]
    low, high = interval([ordered, against], 0)
    assert low == high == 0.0  # means of 1 and -1
    mixed = [(0.0, 1.0), (1.0, 0.0), (2.0, 3.0), (3.0, 2.0), (4.0, 5.0), (5.0, 4.0)]
    low, high = interval([mixed], 0)
    assert -1 <= low < kendall(mixed) < high <= 1 and (low, high) == interval([mixed], 0)
    # the outer 2.5 % on each side, by draws of our own
    rng = Random(5)
    taus = sorted(t for _ in range(DRAWS) if (t := kendall(rng.choices(mixed, k=6))) == t)
    assert low == pytest.approx(taus[round(0.025 * len(taus))], abs=0.2)
    assert high == pytest.approx(taus[round(0.975 * len(taus)) - 1], abs=0.2)
