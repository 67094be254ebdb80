"""Multi-label metrics against scikit-learn and against trying everything."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, hamming_loss, jaccard_score

from kdx.metrics.multilabel import (
    LabelDecisions,
    LabelRanking,
    average_precision,
    best_thresholds,
    decide,
    f1,
    holds,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def sample(examples: int = 60, labels: int = 5, levels: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    targets = (torch.rand(examples, labels) < torch.linspace(0.1, 0.7, labels)).double()
    logits = 1.5 * targets - 1 + torch.randn(examples, labels).double()
    # few levels: many equal logits
    return (logits if levels is None else (logits * levels).round() / levels), targets


def expected(logits: torch.Tensor, targets: torch.Tensor, thresholds: torch.Tensor | float) -> dict[str, float]:
    y, p = targets.numpy() >= 0.5, (logits >= thresholds).numpy()
    return {
        "micro_f1": f1_score(y, p, average="micro", zero_division=0),
        "macro_f1": f1_score(y, p, average="macro", zero_division=0),
        "hamming": 1 - hamming_loss(y, p),
        "jaccard": jaccard_score(y, p, average="samples", zero_division=1.0),
    }


def decided(logits: torch.Tensor, targets: torch.Tensor, thresholds, size: int = 16) -> dict[str, float]:
    metric = LabelDecisions(thresholds)
    for z, y in zip(logits.split(size), targets.split(size), strict=True):
        metric.update(z, y)
    return metric.compute()


@pytest.mark.parametrize("size", [1, 7, 60])
@pytest.mark.parametrize("thresholds", [0.0, -0.7, torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0])])
def test_decisions_equal_scikit_learn(size: int, thresholds: torch.Tensor | float):
    logits, targets = sample()
    assert decided(logits, targets, thresholds, size) == pytest.approx(expected(logits, targets, thresholds), rel=1e-12)


def test_soft_targets_count_from_one_half_on():
    logits, targets = sample()
    soft = torch.where(targets > 0, 0.5 + 0.5 * torch.rand(60, 5), 0.49 * torch.rand(60, 5))
    assert decided(logits, soft, 0.0) == decided(logits, targets, 0.0)
    assert torch.equal(average_precision(logits, soft), average_precision(logits, targets))


def test_a_label_that_nobody_has_or_predicts_has_f1_zero():
    logits, targets = sample()
    targets[:, 2], logits[:, 2] = 0.0, -5.0
    found = decided(logits, targets, 0.0)
    assert found == pytest.approx(expected(logits, targets, 0.0), rel=1e-12)
    others = [0, 1, 3, 4]
    assert found["macro_f1"] == pytest.approx(decided(logits[:, others], targets[:, others], 0.0)["macro_f1"] * 4 / 5)


@pytest.mark.parametrize("levels", [None, 1, 2, 4])
def test_average_precision_equals_scikit_learn_also_with_ties(levels: int | None):
    logits, targets = sample(200, 6, levels)
    found = average_precision(logits, targets)
    one_by_one = [average_precision_score(targets[:, c], logits[:, c]) for c in range(6)]
    assert found.tolist() == pytest.approx(one_by_one, rel=1e-12)
    metric = LabelRanking()
    for z, y in zip(logits.split(33), targets.split(33), strict=True):
        metric.update(z, y)
    assert metric.compute()["map"] == pytest.approx(average_precision_score(targets, logits, average="macro"))


def test_equal_logits_give_the_share_of_positives():
    _, targets = sample()
    torch.testing.assert_close(average_precision(torch.zeros(60, 5), targets), targets.mean(0))


def test_the_order_of_examples_does_not_matter():
    logits, targets = sample(levels=2)
    order = torch.randperm(60)
    assert torch.equal(average_precision(logits[order], targets[order]), average_precision(logits, targets))


def test_labels_without_a_positive_are_left_out_of_the_mean():
    logits, targets = sample()
    targets[:, [1, 3]] = 0.0
    metric = LabelRanking()
    metric.update(logits, targets)
    others = [0, 2, 4]
    kept = average_precision_score(targets[:, others], logits[:, others], average="macro")
    assert metric.compute()["map"] == pytest.approx(kept)
    assert average_precision(logits, targets).isnan().tolist() == [False, True, False, True, False]
    none = LabelRanking()
    none.update(logits, torch.zeros(60, 5))
    assert math.isnan(none.compute()["map"])


def test_processes_merge():
    logits, targets = sample(61, levels=3)
    for make in (lambda: LabelDecisions(0.0), LabelRanking):
        whole, *parts = (make() for _ in range(4))
        whole.update(logits, targets)
        for i, part in enumerate(parts):
            part.update(logits[i::3], targets[i::3])
        empty = make()
        for part in parts:
            empty.merge(part.sums)
        assert empty.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_what_is_kept_does_not_change_with_the_batch():
    logits, targets = sample()
    metric = LabelRanking()
    metric.update(logits, targets)
    before = metric.compute()
    logits.neg_()
    assert metric.compute() == before


def mean_average_precision(logits: torch.Tensor, targets: torch.Tensor) -> float:
    metric = LabelRanking()
    metric.update(logits, targets)
    return metric.compute()["map"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_network_never_scores(bad: float):
    _, targets = sample()
    logits = torch.full((60, 5), bad)
    assert decided(logits, targets, 0.0) == {"micro_f1": 0.0, "macro_f1": 0.0, "hamming": 0.0, "jaccard": 0.0}
    # every other order of the same examples has a larger average precision, ties aside
    worst = average_precision_score(targets, 1 - targets, average="macro")
    assert mean_average_precision(logits, targets) == pytest.approx(worst)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_single_broken_logit_only_lowers_the_scores(bad: float):
    logits, targets = sample()
    for place in [(0, 0), (1, 4), (2, 2), (3, 3)]:
        broken = logits.clone()
        broken[place] = bad
        before, after = decided(logits, targets, 0.0), decided(broken, targets, 0.0)
        assert all(after[name] <= before[name] for name in before)
        assert mean_average_precision(broken, targets) <= mean_average_precision(logits, targets)


def tried(logits: torch.Tensor, targets: torch.Tensor, per_label: bool) -> list[float]:
    """The largest F1 of each label, or of all: by every threshold there is."""
    columns = [(logits[:, c], targets[:, c]) for c in range(logits.shape[1])]
    if not per_label:
        columns = [(logits.flatten(), targets.flatten())]
    return [
        max(
            f1_score(y.numpy(), (z >= t).numpy(), zero_division=0)
            for t in [*z[z.isfinite()].unique().tolist(), math.inf]
        )
        for z, y in columns
    ]


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("per_label", [False, True])
def test_chosen_thresholds_have_the_largest_f1(levels: int | None, per_label: bool):
    logits, targets = sample(levels=levels)
    thresholds = best_thresholds(logits, targets, per_label)
    assert thresholds.shape == (5,) and thresholds.dtype == torch.float64
    predicted = (logits >= thresholds).numpy()
    if per_label:
        found = f1_score(targets.numpy(), predicted, average=None)
    else:
        assert len(thresholds.unique()) == 1
        found = np.array([f1_score(targets.numpy(), predicted, average="micro")])
    assert found.tolist() == pytest.approx(tried(logits, targets, per_label), rel=1e-12)


def test_of_equal_thresholds_the_nearest_to_zero_then_the_larger_is_taken():
    def best(logits: list[float], targets: list[float]) -> float:
        return float(best_thresholds(torch.tensor([logits]).T, torch.tensor([targets]).T, per_label=True))

    # everything between the two separates them, and 0 lies there
    assert best([-3.0, 5.0], [0.0, 1.0]) == 0.0
    assert best([2.0, 5.0], [0.0, 1.0]) == 3.5
    # both predicted is best, so every threshold up to the lower logit is
    assert best([1.0, 2.0], [1.0, 0.0]) == 0.0
    assert best([-2.0, -1.0], [1.0, 0.0]) == -2.0
    # F1 is 2/3 for the upper one, 2/3 for the upper four, less otherwise
    assert best([-3.0, -1.0, 1.0, 1.0, 3.0], [0.0, 1.0, 0.0, 0.0, 1.0]) == 2.0


def test_a_label_without_positives_keeps_one_half():
    logits, targets = sample()
    targets[:, 1] = 0.0
    logits[:, 1] += 3
    assert best_thresholds(logits, targets, per_label=True)[1] == 0.0


def test_neighbouring_numbers_are_told_apart():
    low = torch.tensor(1.5, dtype=torch.float64)
    high = torch.nextafter(low, torch.tensor(2.0).double())
    logits, targets = torch.stack([low, high])[:, None], torch.tensor([[0.0], [1.0]])
    threshold = best_thresholds(logits, targets, per_label=True)
    assert (logits >= threshold).double().equal(targets.double())


@pytest.mark.parametrize("per_label", [False, True])
def test_thresholds_skip_logits_that_are_not_finite(per_label: bool):
    logits, targets = sample()
    logits[::9] = math.nan
    thresholds = best_thresholds(logits, targets, per_label)
    metric = LabelRanking()
    metric.update(logits, targets)
    assert torch.equal(metric.thresholds(per_label), thresholds)
    assert thresholds.isfinite().all()
    # no other threshold has a larger F1 once wrong decisions are counted
    wanted = holds(targets)

    def scores(t: torch.Tensor) -> torch.Tensor:
        counts = [(decide(logits, targets, t) & wanted).sum(0), decide(logits, targets, t).sum(0), wanted.sum(0)]
        return f1(*counts) if per_label else f1(*(c.sum() for c in counts))

    best = scores(thresholds)
    for t in logits[logits.isfinite()].tolist():
        assert (scores(torch.tensor(t)) <= best + 1e-12).all()
    assert best_thresholds(torch.full((4, 2), math.nan), torch.ones(4, 2), per_label).tolist() == [0.0, 0.0]


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"need logits and targets \[B, C\], got \[4, 3\] and \[4\]"):
        decide(torch.zeros(4, 3), torch.zeros(4), 0.0)


def test_nothing_seen_is_refused():
    with pytest.raises(ValueError, match="LabelRanking has seen no examples"):
        LabelRanking().compute()
    with pytest.raises(ValueError, match="LabelDecisions has seen no examples"):
        LabelDecisions(0.0).compute()
