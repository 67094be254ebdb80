"""Rank correlation with published numbers: against SciPy and by counting all orders."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kendalltau

from kdx.tables.ranking import agreement, kendall_tau, ranking_note, tau_p


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_scipys(seed: int, ties: bool):
    draws = np.random.default_rng(seed)
    ours, theirs = draws.normal(size=(2, 9))
    if ties:
        ours, theirs = np.round(ours), np.round(theirs)
    names = [f"m{i}" for i in range(9)]
    sides = [dict(zip(names, map(float, side), strict=True)) for side in (ours, theirs)]
    assert kendall_tau(*sides) == pytest.approx(kendalltau(ours, theirs).statistic, abs=1e-12)


def test_the_p_value_counts_all_orders():
    for n in (3, 4, 5, 6):
        base = dict(enumerate(range(n)))
        taus = [kendall_tau(base, dict(enumerate(order))) for order in permutations(range(n))]  # pyright: ignore
        for tau in set(taus):
            share = sum(abs(other) >= abs(tau) - 1e-12 for other in taus) / len(taus)
            assert tau_p(tau, n) == pytest.approx(share, abs=1e-12)
    # a normal approximation beyond
    wanted = kendalltau(range(30), [*range(10, 30), *range(10)])
    assert tau_p(float(wanted.statistic), 30) == pytest.approx(float(wanted.pvalue), abs=0.02)


def test_only_rows_with_a_published_number_are_compared():
    values = {row: {0: v, 1: v} for row, v in (("a", 3.0), ("b", 2.0), ("c", 1.0), ("own", 9.0))}
    found = agreement(values, {"c": 0.1, "a": 0.3, "b": 0.2, "other": 5.0})
    assert found.rows == ["a", "b", "c"] and found.tau == 1.0 and found.interval == (1.0, 1.0)
    assert set(found.moved.values()) == {0} and "the order is the same" in ranking_note("p", found)
    with pytest.raises(ValueError, match="two rows in common"):
        agreement({"a": {0: 1.0}}, {"a": 1.0})
    with pytest.raises(ValueError, match="no order"):
        kendall_tau({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0})


def test_moves_are_in_places_and_a_better_rank_is_positive():
    values = {row: {0: v} for row, v in (("a", 1.0), ("b", 3.0), ("c", 2.0))}
    found = agreement(values, {"a": 3.0, "b": 2.0, "c": 1.0})
    assert found.moved == {"a": -2, "b": 1, "c": 1} and next(iter(found.moved)) == "a"
    assert all(map(math.isnan, found.interval)) and "one seed, no interval" in ranking_note("p", found)


def test_the_interval_is_as_wide_as_the_seeds_disagree():
    draws = np.random.default_rng(0)
    truth = dict(zip("abcdefgh", np.linspace(0, 1.4, 8).tolist(), strict=True))
    sides = []
    for noise in (0.01, 0.6):
        values = {row: {s: v + float(draws.normal(0, noise)) for s in range(5)} for row, v in truth.items()}
        found = agreement(values, truth)
        assert found.interval[0] <= found.tau <= found.interval[1] + 1e-12
        sides.append(found.interval[1] - found.interval[0])
    assert sides[0] == 0.0 and sides[1] > 0.1


def test_what_all_rows_share_in_a_seed_does_not_widen_the_interval():
    draws = np.random.default_rng(1)
    truth = dict(zip("abcdef", np.linspace(0, 0.5, 6).tolist(), strict=True))
    common = {seed: float(draws.normal(0, 5)) for seed in range(4)}
    values = {row: {s: v + common[s] for s in common} for row, v in truth.items()}
    assert agreement(values, truth).interval == pytest.approx((1.0, 1.0))
