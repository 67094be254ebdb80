"""Intervals and comparisons against textbook values and closed forms."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from kdx.tables.statistics import Summary, caution, compare, grain_of, pairs, welch
from kdx.tables.student_t import half_width, t_quantile, two_sided

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
    assert not unpaired.significant and unpaired.seeds == () and not unpaired.paired
    assert unpaired.gain.mean == pytest.approx(0.015)


def test_swapping_the_sides_turns_the_sign():
    a, b = {0: 1.0, 1: 2.5, 2: 2.0}, {0: 0.5, 1: 2.6, 2: 1.0}
    there, back = compare(a, b), compare(b, a)
    assert there.gain.mean == -back.gain.mean
    assert there.interval == pytest.approx([-x for x in reversed(back.interval)])


@pytest.mark.parametrize("n", [1, 2])
def test_few_seeds_are_reported(n):
    assert f"{n} seed" in (caution(n) or "")
    assert caution(3) is None


def test_only_matching_seeds_are_paired_and_their_means_give_the_difference():
    found = compare({0: 1.0, 1: 2.0, 2: 4.0, 7: 99.0}, {0: 0.0, 1: 1.0, 2: 2.0, 8: -99.0})
    assert found.seeds == (0, 1, 2)
    assert found.gain == Summary.of([1.0, 1.0, 2.0])
    assert found.gain.mean == pytest.approx(found.right.mean - found.left.mean)


def test_two_pairs_are_not_preferred_to_five_against_five():
    ours, theirs = ({seed + shift: 1.0 + 0.1 * seed for seed in range(5)} for shift in (0, 3))
    assert pairs(ours, theirs) == ()
    found = compare(ours, theirs)
    assert found.gain.n == 5 and found.freedom == pytest.approx(8)
    assert found.gain.mean == pytest.approx(found.right.mean - found.left.mean)


def test_two_seeds_are_never_significant():
    found = compare({0: 1.0, 1: 1.0}, {0: 0.0, 1: 0.0})
    assert found.interval == (1.0, 1.0) and not found.significant


@pytest.mark.parametrize("n", [3, 4, 5])
def test_the_same_one_image_on_each_seed_is_no_verdict(n):
    images = 797
    ours, theirs = ({seed: (700 + more) / images for seed in range(n)} for more in (1, 0))
    grain = grain_of([*ours.values(), *theirs.values()], images, 1e-4)
    assert grain == 1 / images
    found = compare(ours, theirs, grain)
    assert found.gain.std == pytest.approx(0, abs=1e-12)
    assert not found.significant and found.interval[0] <= 1e-9 and 2 / images <= found.interval[1] + 1e-9
    # two images on each seed are above the grain
    assert compare({s: v + 1 / images for s, v in ours.items()}, theirs, grain).significant


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero():
    baseline = {0: 0.0, 1: 0.0, 2: 0.0}
    for grain in (0.0, 0.5):
        found = compare({0: 1.0, 1: 2.0, 2: 3.0}, baseline, grain)
        at_zero = max(half_width(found.p, found.error, found.freedom, 0.0), grain)
        assert at_zero == pytest.approx(found.gain.mean, rel=1e-6)
    # a spread of nothing is known to the grain alone: 1 / sqrt(6 * 3) of it, with 2 degrees of freedom
    flat = compare({0: 1.0, 1: 1.0, 2: 1.0}, baseline, 0.1)
    assert flat.p == pytest.approx(2 * stats.t.sf(1 / (0.1 / math.sqrt(18)), 2), rel=1e-6)


def test_welch_of_a_textbook_example():
    # n 10 and 10, variances 4 and 16: freedom (0.4 + 1.6)^2 / (0.16 / 9 + 2.56 / 9) = 13.235
    error, freedom = welch(Summary(20.0, 2.0, 10), Summary(18.0, 4.0, 10))
    assert error == pytest.approx(math.sqrt(2)) and freedom == pytest.approx(4 / (0.16 / 9 + 2.56 / 9))
    assert half_width(0.05, error, freedom, 0.0) == pytest.approx(2.157 * math.sqrt(2), abs=2e-3)


def test_welch_of_equal_sides_is_student_s():
    assert welch(Summary(1.0, 0.5, 6), Summary(0.0, 0.5, 6)) == pytest.approx((0.5 * math.sqrt(2 / 6), 10))


def test_welch_needs_a_spread_on_both_sides():
    assert all(map(math.isnan, welch(Summary.of([1.0]), Summary.of([1.0, 2.0]))))
    single = compare({0: 1.0}, {0: 0.5})
    assert math.isnan(single.p) and not single.significant and math.isnan(single.interval[0])


@pytest.mark.parametrize(("error", "freedom", "normal"), [(1.0, 2, 1.0), (1.0, 1, 2.0), (0.3, 4, 1.0), (1.0, 30, 0.5)])
def test_the_sum_of_student_s_t_and_a_normal_number_is_that_of_a_simulation(error, freedom, normal):
    draws = np.random.default_rng(3)
    sums = np.abs(error * draws.standard_t(freedom, 400_000) + normal * draws.standard_normal(400_000))
    half = half_width(0.05, error, freedom, normal)
    assert (sums > half).mean() == pytest.approx(0.05, abs=0.0015)
    assert two_sided(half, error, freedom, normal) == pytest.approx(0.05, abs=1e-6)


def test_a_t_without_a_normal_part_is_scipy_s():
    for distance, freedom in ((0.3, 1.0), (2.2, 2.7), (5.0, 11.0)):
        assert two_sided(distance, 1.0, freedom, 0.0) == pytest.approx(2 * stats.t.sf(distance, freedom), rel=1e-8)
        assert two_sided(distance, 1.0, freedom, 1e-9) == pytest.approx(2 * stats.t.sf(distance, freedom), rel=1e-5)
