"""Intervals and comparisons against textbook values and closed forms."""

import math
from statistics import NormalDist

import pytest

from kdx.tables.statistics import Comparison, Summary, bootstrap, caution, compare, t_quantile, welch

# Two-sided 95 % and 99 % points of Student's t, as printed in any table
TABLE = {
    (0.975, 1): 12.706,
    (0.975, 2): 4.303,
    (0.975, 3): 3.182,
    (0.975, 4): 2.776,
    (0.975, 9): 2.262,
    (0.975, 30): 2.042,
    (0.975, 120): 1.980,
    (0.995, 1): 63.657,
    (0.995, 4): 4.604,
    (0.995, 10): 3.169,
    (0.95, 5): 2.015,
}


@pytest.mark.parametrize(("point", "value"), TABLE.items())
def test_quantile_is_the_table_s(point, value):
    assert t_quantile(*point) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.999])
def test_quantile_has_closed_forms_at_one_and_two_degrees(p):
    assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-9)
    assert t_quantile(p, 2) == pytest.approx((2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p))), rel=1e-9)


@pytest.mark.parametrize("p", [0.55, 0.975, 0.9999])
def test_quantile_is_odd_and_tends_to_the_normal_one(p):
    assert t_quantile(1 - p, 7.3) == -t_quantile(p, 7.3)
    assert t_quantile(0.5, 3) == pytest.approx(0, abs=1e-9)
    assert t_quantile(p, 1e7) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-5)


@pytest.mark.parametrize(("p", "freedom"), [(0, 3), (1, 3), (0.9, 0)])
def test_quantile_refuses_what_has_none(p, freedom):
    with pytest.raises(ValueError, match="quantile"):
        t_quantile(p, freedom)


def test_interval_of_a_textbook_sample():
    # mean 5, sum of squares 10, variance 2.5: 5 +- 2.776 * sqrt(2.5 / 5)
    low, high = Summary.of([3, 4, 5, 6, 7]).interval
    assert (low, high) == pytest.approx((5 - 1.9632, 5 + 1.9632), abs=2e-4)


def test_a_single_number_has_no_interval():
    assert all(map(math.isnan, Summary.of([1.0]).interval))


def test_pairs_cancel_what_both_sides_share():
    baseline = {0: 0.10, 1: 0.50, 2: 0.90, 3: 0.30}
    values = {
        seed: value + gain for (seed, value), gain in zip(baseline.items(), (0.01, 0.02, 0.01, 0.02), strict=True)
    }
    found = compare(values, baseline)
    assert found.gain.mean == pytest.approx(0.015)
    assert found.seeds == (0, 1, 2, 3) and found.significant
    assert found.interval[0] > 0
    unpaired = compare({seed + 10: value for seed, value in values.items()}, baseline)
    assert not unpaired.significant and unpaired.seeds == () and unpaired.bootstrap is None
    assert unpaired.gain.mean == pytest.approx(0.015)


def test_only_matching_seeds_are_paired():
    found = compare({0: 1.0, 1: 2.0, 2: 4.0, 7: 99.0}, {0: 0.0, 1: 1.0, 2: 2.0, 8: -99.0})
    assert found.seeds == (0, 1, 2)
    assert found.gain == Summary.of([1.0, 1.0, 2.0])


def test_swapping_the_sides_turns_the_sign():
    a, b = {0: 1.0, 1: 2.5, 2: 2.0}, {0: 0.5, 1: 2.6, 2: 1.0}
    there, back = compare(a, b), compare(b, a)
    assert there.gain.mean == -back.gain.mean
    assert there.interval == pytest.approx([-x for x in reversed(back.interval)])


def test_two_seeds_are_never_significant():
    found = compare({0: 1.0, 1: 1.0}, {0: 0.0, 1: 0.0})
    assert found.interval == (1.0, 1.0) and not found.significant


def test_bootstrap_is_the_same_each_time_and_inside_the_data():
    values = [0.2, 0.5, 0.4, 0.9, 0.1]
    low, high = bootstrap(values)
    assert bootstrap(values) == (low, high)
    assert min(values) < low < sum(values) / 5 < high < max(values)
    assert bootstrap([0.3, 0.3]) == (0.3, 0.3)


def test_bootstrap_of_two_numbers_by_counting():
    # means are a, (a + b) / 2, b with probabilities 1/4, 1/2, 1/4: 95 % needs both ends
    assert bootstrap([0.0, 1.0]) == (0.0, 1.0)


def test_bootstrap_of_many_numbers_is_the_normal_interval():
    normal = NormalDist()
    values = [normal.inv_cdf((i + 0.5) / 200) for i in range(200)]
    low, high = bootstrap(values)
    half = 1.96 * math.sqrt(sum(v * v for v in values) / 200 / 200)
    assert (low, high) == pytest.approx((-half, half), abs=0.012)


def test_welch_of_a_textbook_example():
    # n 10 and 10, variances 4 and 16: freedom (0.4 + 1.6)^2 / (0.16 / 9 + 2.56 / 9) = 13.235
    difference, (low, high) = welch(Summary(20.0, 2.0, 10), Summary(18.0, 4.0, 10))
    half = t_quantile(0.975, 4 / (0.16 / 9 + 2.56 / 9)) * math.sqrt(2)
    assert difference == 2 and (low, high) == pytest.approx((2 - half, 2 + half))
    assert half == pytest.approx(2.157 * math.sqrt(2), abs=2e-3)


def test_welch_of_equal_sides_is_student_s():
    _, (low, high) = welch(Summary(1.0, 0.5, 6), Summary(0.0, 0.5, 6))
    assert (high - low) / 2 == pytest.approx(2.228 * 0.5 * math.sqrt(2 / 6), abs=1e-3)


def test_welch_needs_a_spread_on_both_sides():
    _, interval = welch(Summary.of([1.0]), Summary.of([1.0, 2.0]))
    assert all(map(math.isnan, interval))
    assert welch(Summary(2.0, 0.0, 3), Summary(1.0, 0.0, 3)) == (1.0, (1.0, 1.0))


def test_an_interval_that_is_no_number_is_never_significant():
    assert not Comparison(Summary(1.0, math.nan, 1), (math.nan, math.nan), None, (), True).significant


@pytest.mark.parametrize("n", [1, 2])
def test_few_seeds_are_said(n):
    assert f"{n} seed" in (caution(n) or "")
    assert caution(3) is None
