"""Confidence sequences: the likelihood ratio against an integral, and how often null experiments are claimed."""

import math

import numpy as np
import pytest

from kdx.core.errors import UserError
from kdx.tables.sequential import FIRST, PRIOR, Seeds, e_value, sequence_half_width
from kdx.tables.statistics import compare
from kdx.tables.student_t import t_quantile

ALPHA = 0.05
IMAGES = 10_000


def by_integration(values: np.ndarray) -> float:
    """The mixed likelihood ratio over a grid of effects and of logarithms of deviations."""
    sigma = np.exp(np.linspace(math.log(np.abs(values).mean()) - 9, math.log(np.abs(values).mean()) + 14, 4001))
    delta = np.linspace(-10 * PRIOR, 10 * PRIOR, 2001)
    prior = np.exp(-0.5 * (delta / PRIOR) ** 2) / (PRIOR * math.sqrt(2 * math.pi)) * (delta[1] - delta[0])
    log_sigma = np.log(sigma)

    def over_deviations(effect: float) -> float:  # of the density with the prior 1 / sigma, up to a constant
        z = values[:, None] / sigma[None] - effect
        return float(np.exp(-0.5 * (z**2).sum(0) - len(values) * log_sigma).sum())

    effects = np.array([over_deviations(float(d)) for d in delta[::10]])
    return float((effects * prior[::10] * 10).sum() / over_deviations(0.0))


@pytest.mark.parametrize("seed", range(3))
def test_the_evidence_is_the_likelihood_ratio_mixed_over_effects_and_deviations(seed: int):
    values = np.random.default_rng(seed).normal(0.4 * seed, 1.0, 3 + seed)
    ours = e_value(float(values.mean()), float(values.std(ddof=1)), len(values))
    assert ours == pytest.approx(by_integration(values), rel=1e-3)


def test_the_evidence_has_expectation_one_without_an_effect():
    # of a martingale; its heavy tail is cut, so the mean of the rest is below 1 and near it
    draws = np.random.default_rng(1).normal(0, 1, (40_000, 6))
    found = np.array([e_value(float(m), float(s), 6) for m, s in zip(draws.mean(1), draws.std(1, ddof=1), strict=True)])
    assert np.minimum(found, 1e4).mean() == pytest.approx(1.0, abs=0.1)
    assert (found >= 20).mean() <= 1 / 20


def test_the_interval_ends_where_the_evidence_reaches_its_bound():
    draws = np.random.default_rng(2)
    for n in (3, 4, 7, 20, 100):
        std = float(draws.uniform(0.1, 3))
        half = sequence_half_width(ALPHA, std, n)
        assert e_value(half, std, n) == pytest.approx(1 / ALPHA, rel=1e-9)
        assert half > t_quantile(0.975, n - 1) * std / math.sqrt(n)  # wider than at a number fixed in advance
    assert sequence_half_width(ALPHA, 1.0, 2) == math.inf


def rates(draws: np.random.Generator, trials: int, most: int, spread: float, effect: float) -> tuple[float, float]:
    """Share of studies that claim an effect: with the rule of `seeds=auto`, and by Student's interval at each seed."""
    rule = Seeds(width=None, max=most, holm=False)
    claimed = naive = 0
    for _ in range(trials):
        shared = draws.normal(0.7, spread, most)
        sides = (shared + draws.normal(0, spread, most), shared + effect + draws.normal(0, spread, most))
        base, ours = (dict(enumerate(np.round(side * IMAGES) / IMAGES)) for side in sides)
        peeked = False
        for n in range(FIRST, most + 1):
            seen = [{seed: float(side[seed]) for seed in range(n)} for side in (ours, base)]
            peeked = peeked or compare(*seen, grain=1 / IMAGES).significant
            if (why := rule.reason(compare(*seen, grain=1 / IMAGES, anytime=True).interval, True, 100, n)) is not None:
                claimed += why == "excludes zero"
                break
        if not peeked:
            for later in range(n + 1, most + 1):
                seen = [{seed: float(side[seed]) for seed in range(later)} for side in (ours, base)]
                peeked = peeked or compare(*seen, grain=1 / IMAGES).significant
        naive += peeked
    return claimed / trials, naive / trials


def test_few_null_experiments_are_claimed_and_many_by_peeking():
    claimed, naive = rates(np.random.default_rng(3), 400, 8, 0.002, 0.0)
    assert claimed <= 0.05 and naive > 0.09, (claimed, naive)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.002, 0.0001])
def test_of_ten_thousand_null_experiments_at_most_five_in_a_hundred_are_claimed(spread: float):
    # 0.0001 is one test image, so that differences take few values
    claimed, naive = rates(np.random.default_rng(4), 10_000, 10, spread, 0.0)
    print(f"spread {spread}: claimed {claimed:.4f} with the sequence, {naive:.4f} by peeking")
    assert claimed <= 0.05
    assert naive > 0.12 or spread < 0.001


def test_an_effect_of_four_deviations_is_found_with_few_seeds():
    claimed, _ = rates(np.random.default_rng(5), 100, 8, 0.002, 0.011)
    assert claimed > 0.9


def test_all_intervals_of_a_study_hold_the_true_difference_at_once():
    draws = np.random.default_rng(6).normal(0.3, 1.0, (3000, 30))
    missed = np.zeros(len(draws), bool)
    for n in range(2, 31):
        unit = sequence_half_width(ALPHA, 1.0, n)
        missed |= np.abs(draws[:, :n].mean(1) - 0.3) > unit * draws[:, :n].std(1, ddof=1)
    assert 0 < missed.mean() <= ALPHA


def test_equal_differences_of_one_image_are_no_claim():
    ours, base = ({seed: 0.7 + up for seed in range(5)} for up in (1 / IMAGES, 0.0))
    found = compare(ours, base, grain=1 / IMAGES, anytime=True)
    assert found.interval[0] <= 0 and found.p == 1.0 and not found.significant
    more = compare({s: v + 0.01 for s, v in ours.items()}, base, grain=1 / IMAGES, anytime=True)
    assert more.interval[0] > 0 and more.significant


def test_the_p_value_and_the_interval_agree():
    draws = np.random.default_rng(7)
    for _ in range(200):
        n = int(draws.integers(3, 12))
        values = dict(enumerate(draws.normal(draws.uniform(-2, 2), 1, n).tolist()))
        found = compare(values, dict.fromkeys(values, 0.0), anytime=True)
        assert (found.p < ALPHA) == (found.interval[0] > 0 or found.interval[1] < 0)


def test_only_seeds_in_common_are_compared_however_many_the_baseline_has():
    few, many = {0: 1.0, 1: 1.2, 2: 1.1}, {seed: 0.5 for seed in range(20)}
    assert compare(few, many, anytime=True).seeds == (0, 1, 2)
    with pytest.raises(ValueError, match="no pairs"):
        compare({30: 1.0}, many, anytime=True)


def test_a_rule_that_cannot_end_a_comparison_is_refused():
    for width, most in ((None, 2), (0.0, 5), (-1.0, 5)):
        with pytest.raises(UserError, match="seeds.width" if most == 5 else "seeds.max=2"):
            Seeds(width=width, max=most, holm=True)
