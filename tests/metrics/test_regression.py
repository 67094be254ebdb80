"""RMSE, MAE and R² against scikit-learn."""

import math

import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from kdx.metrics.regression import RegressionErrors, mae, r2, rmse


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def sample(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.randn(*shape, dtype=torch.float64) * torch.rand(shape[1:], dtype=torch.float64).add(0.5)
    return targets + 0.5 * torch.randn(*shape, dtype=torch.float64), targets


def expected(predictions: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    y, p = targets.numpy(), predictions.numpy()
    return {
        "rmse": math.sqrt(mean_squared_error(y.ravel(), p.ravel())),
        "mae": mean_absolute_error(y.ravel(), p.ravel()),
        "r2": r2_score(y, p, multioutput="uniform_average"),
    }


def streamed(predictions: torch.Tensor, targets: torch.Tensor, size: int, **own) -> RegressionErrors:
    metric = RegressionErrors(**{"scale": 1.0, "reference": 0.0, **own})
    for p, y in zip(predictions.split(size), targets.split(size), strict=True):
        metric.update(p, y)
    return metric


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 4)])
@pytest.mark.parametrize("size", [1, 7, 50])
def test_equals_scikit_learn_for_any_batch_size(shape: tuple[int, ...], size: int):
    predictions, targets = sample(*shape)
    assert streamed(predictions, targets, size).compute() == pytest.approx(expected(predictions, targets), rel=1e-12)


@pytest.mark.parametrize("shape", [(50,), (50, 4)])
def test_the_functions_equal_scikit_learn(shape: tuple[int, ...]):
    predictions, targets = sample(*shape)
    found = {"rmse": rmse(predictions, targets), "mae": mae(predictions, targets), "r2": r2(predictions, targets)}
    assert found == pytest.approx(expected(predictions, targets), rel=1e-12)


def test_standardised_numbers_are_reported_in_the_unit_of_scale():
    predictions, targets = sample(40, 3)
    scale, shift = torch.tensor([10.0, 0.1, 3.0]).double(), torch.tensor([-5.0, 100.0, 0.0]).double()
    found = streamed(predictions, targets, 16, scale=scale).compute()
    assert found == pytest.approx(expected(predictions * scale + shift, targets * scale + shift), rel=1e-9)


def test_processes_merge_by_adding_sums():
    predictions, targets = sample(41, 3)
    whole = streamed(predictions, targets, 8)
    parts = [streamed(predictions[part::3], targets[part::3], 8) for part in range(3)]
    for other in parts[1:]:
        parts[0].merge(other.sums)
    assert parts[0].compute() == pytest.approx(whole.compute(), rel=1e-13)


def test_a_process_without_a_batch_merges_too():
    predictions, targets = sample(9)
    empty = RegressionErrors(scale=1.0, reference=0.0)
    whole = streamed(predictions, targets, 4)
    empty.merge(whole.sums)
    whole.merge({})
    assert empty.compute() == whole.compute()


def test_targets_far_from_zero_keep_their_accuracy():
    predictions, targets = (t + 1e8 for t in sample(1000))
    near = streamed(predictions, targets, 64, reference=1e8 + 3.0).compute()
    assert near == pytest.approx(expected(predictions, targets), rel=1e-9)
    assert r2(predictions, targets) == pytest.approx(r2_score(targets, predictions), rel=1e-9)


def test_the_reference_does_not_change_the_result():
    predictions, targets = sample(100, 2)
    first, second = (streamed(predictions, targets, 9, reference=r).compute() for r in (0.0, torch.tensor([3.0, -2.0])))
    assert first == pytest.approx(second, rel=1e-12)


def test_the_mean_of_the_targets_has_r2_zero_and_the_targets_have_one():
    _, targets = sample(30, 2)
    assert r2(targets.mean(0).expand(30, 2), targets) == pytest.approx(0.0, abs=1e-12)
    assert (rmse(targets, targets), mae(targets, targets), r2(targets, targets)) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_constant_targets_follow_scikit_learn(value: float):
    targets = torch.full((30, 1), value, dtype=torch.float64)
    near = targets + torch.randn(30, 1, dtype=torch.float64)
    assert (r2(targets, targets), r2(near, targets)) == (1.0, 0.0)
    if value != 0.1:  # its mean over 30 rounds in scikit-learn, which then divides by the square of that error
        assert (r2_score(targets, targets), r2_score(targets, near)) == (1.0, 0.0)
    # also where the sums about a reference round
    assert streamed(targets, targets, 7, reference=0.3).compute()["r2"] == 1.0
    assert streamed(near, targets, 7, reference=0.3).compute()["r2"] == 0.0


def test_one_constant_dimension_leaves_the_others():
    predictions, targets = sample(20, 3)
    targets[:, 1] = 0.5
    assert streamed(predictions, targets, 6).compute()["r2"] == pytest.approx(r2_score(targets, predictions))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("constant", [False, True])
def test_a_prediction_that_is_not_finite_never_scores(bad: float, constant: bool):
    predictions, targets = sample(20, 2)
    targets = torch.ones_like(targets) if constant else targets
    predictions[3, 1] = bad
    found = streamed(predictions, targets, 8).compute()
    assert found == {"rmse": math.inf, "mae": math.inf, "r2": -math.inf}


def test_an_infinite_prediction_of_an_infinite_target_is_no_hit():
    found = streamed(torch.tensor([math.inf, 1.0]), torch.tensor([math.inf, 1.0]), 2).compute()
    assert found == {"rmse": math.inf, "mae": math.inf, "r2": -math.inf}


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"same shape, \[B\] or \[B, D\]; got \[4\] and \[4, 2\]"):
        rmse(torch.zeros(4), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="same shape"):
        RegressionErrors(1.0, 0.0).update(torch.zeros(4, 1, 2), torch.zeros(4, 1, 2))


def test_one_number_an_example_may_have_an_axis_of_its_own():
    predictions, targets = sample(12)
    assert rmse(predictions[:, None], targets) == rmse(predictions, targets)


def test_nothing_seen_is_refused():
    with pytest.raises(ValueError, match="RegressionErrors has seen no examples"):
        RegressionErrors(1.0, 0.0).compute()
    with pytest.raises(ValueError, match="RegressionErrors has seen no examples"):
        r2(torch.zeros(0), torch.zeros(0))
