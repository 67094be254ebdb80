"""NLL, Brier score and calibration error against loops and closed forms."""

import math

import pytest
import torch

from kdx.metrics.calibration import Calibration, brier, confidence_bin, expected_calibration_error, nll


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def probabilities(row: list[float]) -> list[float]:
    top = max(row)
    exps = [math.exp(z - top) for z in row]
    return [e / sum(exps) for e in exps]


def brute_ece(logits: torch.Tensor, labels: torch.Tensor, bins: int) -> float:
    rows = [probabilities(row) for row in logits.double().tolist()]
    error = 0.0
    for b in range(bins):
        inside = [i for i, p in enumerate(rows) if b / bins < max(p) <= (b + 1) / bins]
        if inside:
            confidence = sum(max(rows[i]) for i in inside) / len(inside)
            accuracy = sum(rows[i].index(max(rows[i])) == labels[i].item() for i in inside) / len(inside)
            error += len(inside) / len(rows) * abs(confidence - accuracy)
    return error


@pytest.fixture
def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    return 3 * torch.randn(157, 6), torch.randint(6, (157,))


def test_nll_is_one_number_a_row(predictions: tuple[torch.Tensor, torch.Tensor]):
    logits, labels = predictions
    expected = [-math.log(probabilities(r)[y]) for r, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert nll(logits, labels).shape == (157,)
    assert nll(logits, labels).tolist() == pytest.approx(expected, rel=1e-12)


def test_a_perfect_model_has_no_nll():
    # indexing the classes by the whole batch would report about 20 here
    labels = torch.randint(10, (64,))
    logits = 1000.0 * torch.nn.functional.one_hot(labels, 10)
    metric = Calibration(bins=15)
    metric.update(logits, labels)
    assert metric.compute() == {"nll": 0.0, "brier": 0.0, "ece": 0.0}


def test_uniform_predictions_have_closed_forms():
    classes, labels = 8, torch.randint(8, (40,))
    logits = torch.full((40, classes), 3.0)
    assert nll(logits, labels).tolist() == pytest.approx([math.log(classes)] * 40)
    assert brier(logits, labels).tolist() == pytest.approx([1 - 1 / classes] * 40)


def test_sure_and_wrong_has_brier_2():
    logits = torch.tensor([[1000.0, 0.0, 0.0]])
    assert brier(logits, torch.tensor([1])).item() == 2.0


def test_brier_equals_the_loop(predictions: tuple[torch.Tensor, torch.Tensor]):
    logits, labels = predictions
    expected = [
        sum((p - (c == y)) ** 2 for c, p in enumerate(probabilities(row)))
        for row, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert brier(logits, labels).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_ece_equals_the_loop(predictions: tuple[torch.Tensor, torch.Tensor], bins: int):
    assert expected_calibration_error(*predictions, bins) == pytest.approx(brute_ece(*predictions, bins), rel=1e-12)


def test_bins_are_open_below_and_closed_above():
    confidence = torch.tensor([0.25, 0.2500001, 0.5, 0.75, 1.0], dtype=torch.float64)
    assert confidence_bin(confidence, 4).tolist() == [0, 1, 1, 2, 3]


def test_one_bin_is_the_gap_of_the_means(predictions: tuple[torch.Tensor, torch.Tensor]):
    logits, labels = predictions
    confidence = logits.double().softmax(1).amax(1).mean().item()
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    assert expected_calibration_error(logits, labels, 1) == pytest.approx(abs(confidence - accuracy))


def test_ece_of_known_frequencies_is_the_known_gap():
    # confidence 0.8 throughout and 6 of 10 right
    logits = torch.tensor([[math.log(8.0), math.log(2.0)]]).expand(10, 2)
    labels = torch.tensor([0] * 6 + [1] * 4)
    assert expected_calibration_error(logits, labels, 15) == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize("size", [1, 20, 157])
def test_batches_do_not_matter(predictions: tuple[torch.Tensor, torch.Tensor], size: int):
    whole, parts = Calibration(bins=15), Calibration(bins=15)
    whole.update(*predictions)
    for logits, labels in zip(*(t.split(size) for t in predictions), strict=True):
        parts.update(logits, labels)
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_the_table_adds_up_to_the_error(predictions: tuple[torch.Tensor, torch.Tensor]):
    metric = Calibration(bins=15)
    metric.update(*predictions)
    table = [row for row in metric.table() if row.examples]
    assert sum(row.examples for row in table) == 157
    assert all(row.low < row.confidence <= row.high for row in table)
    gaps = sum(row.examples * abs(row.confidence - row.accuracy) for row in table) / 157
    assert gaps == pytest.approx(metric.compute()["ece"], rel=1e-12)
    assert len(metric.table()) == 15


def test_half_precision_logits_are_measured_in_full(predictions: tuple[torch.Tensor, torch.Tensor]):
    logits, labels = predictions
    half, full = Calibration(bins=15), Calibration(bins=15)
    half.update(logits.bfloat16(), labels)
    full.update(logits.bfloat16().double(), labels)
    assert half.compute() == full.compute()
