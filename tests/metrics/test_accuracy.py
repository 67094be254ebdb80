"""Top-k accuracy against counting."""

import math

import pytest
import torch

from kdx.metrics.accuracy import TopK, rank, right_among, topk_correct


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def brute_rank(row: list[float], label: int) -> int:
    order = sorted(range(len(row)), key=lambda c: (-row[c], c))
    return order.index(label)


@pytest.mark.parametrize("levels", [3, 1000])
def test_rank_is_the_place_in_the_sorted_row(levels: int):
    logits = torch.randint(levels, (200, 7)).double()
    labels = torch.randint(7, (200,))
    expected = [brute_rank(row, y) for row, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert rank(logits, labels).tolist() == expected


def test_the_prediction_is_the_first_maximum():
    logits = torch.randint(3, (200, 5)).double()
    labels = torch.randint(5, (200,))
    assert torch.equal(topk_correct(logits, labels, 1), logits.argmax(1) == labels)


def test_nan_is_never_right():
    logits = torch.randn(6, 4)
    logits[:3] = math.nan
    logits[3, 1] = math.nan
    labels = torch.tensor([0, 1, 3, 0, 0, 0])
    assert not topk_correct(logits, labels, 1)[:4].any()
    assert not topk_correct(logits, labels, 4)[:3].any()


@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_the_last_short_batch_counts_exactly(size: int):
    logits, labels = torch.randn(100, 10), torch.randint(10, (100,))
    metric = TopK(ks=[1, 5])
    for part, y in zip(logits.split(size), labels.split(size), strict=True):
        metric.update(part, y)
    ranks = [brute_rank(row, y) for row, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert metric.compute() == {"top1": sum(r < 1 for r in ranks) / 100, "top5": sum(r < 5 for r in ranks) / 100}


def test_all_classes_are_always_right():
    metric = TopK(ks=[4])
    metric.update(torch.randn(9, 4), torch.randint(4, (9,)))
    assert metric.compute() == {"top4": 1.0}


@pytest.mark.parametrize("k", [0, 6])
def test_k_out_of_range_is_refused(k: int):
    with pytest.raises(ValueError, match="from 1 to the number of classes 5"):
        topk_correct(torch.randn(2, 5), torch.tensor([0, 1]), k)


def test_nothing_seen_is_refused():
    with pytest.raises(ValueError, match="TopK has seen no examples"):
        TopK(ks=[1]).compute()


def test_among_some_classes_the_choice_is_theirs_alone():
    torch.manual_seed(0)
    logits, labels, classes = torch.randn(40, 6), torch.randint(6, (40,)), [4, 0, 3]
    expected = [
        max(classes, key=lambda c: float(row[c])) == label
        for row, label in zip(logits, labels.tolist(), strict=True)
        if label in classes
    ]
    assert right_among(logits[:, classes], labels, classes).tolist() == expected
    assert 0 < sum(expected) < len(expected)
