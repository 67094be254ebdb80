"""Perplexity and accuracy of tokens against a loop."""

import math

import pytest
import torch

from kdx.metrics import token_prediction
from kdx.metrics.token_prediction import TokenPrediction


@pytest.mark.parametrize("rows", [1, 3, 256])
def test_equals_a_loop_over_tokens_in_any_parts(rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_prediction, "ROWS", rows)
    logits, labels = 3 * torch.randn(17, 9), torch.randint(9, (17,))
    nll, right = [], 0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        nll.append(math.log(math.fsum(math.exp(z) for z in row)) - row[label])
        right += row.index(max(row)) == label
    metric = TokenPrediction()
    for part, own in zip(logits.split(5), labels.split(5), strict=True):
        metric.update(part, own)
    mean = math.fsum(nll) / 17
    expected = {"perplexity": math.exp(mean), "token_accuracy": right / 17, "token_nll": mean}
    assert metric.compute() == pytest.approx(expected, rel=1e-9)


def test_batches_without_a_hidden_token_count_nothing():
    metric = TokenPrediction()
    metric.update(torch.zeros(0, 9), torch.zeros(0).long())
    assert all(math.isnan(value) for value in metric.compute().values())
    metric.update(torch.zeros(2, 9), torch.tensor([1, 2]))
    assert metric.compute()["perplexity"] == pytest.approx(9)


def test_a_network_that_is_surely_wrong_has_an_infinite_perplexity():
    metric = TokenPrediction()
    metric.update(torch.tensor([[0.0, 1e6]]), torch.tensor([0]))
    assert metric.compute()["perplexity"] == math.inf
