"""Metrics of pixels against loops over pixels."""

import math

import pytest
import torch
from torch import Tensor

from kdx.metrics.segmentation import PixelClasses, PixelFidelity, confusion, ious, pixel_classes

CLASSES = 4


def scenes(n: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    # class 3 is neither there nor predicted; a tenth of the pixels has no label
    logits = torch.randn(n, CLASSES, 5, 6, generator=g)
    logits[:, 3] = -9.0
    labels = torch.randint(3, (n, 5, 6), generator=g)
    labels[torch.rand(labels.shape, generator=g) < 0.1] = -1
    return logits, labels


def by_hand(logits: Tensor, labels: Tensor) -> dict[str, float]:
    cells = [(b, i, j) for b in range(len(labels)) for i in range(5) for j in range(6) if labels[b, i, j] >= 0]
    answer = {c: max(range(CLASSES), key=lambda k: logits[c[0], k, c[1], c[2]].item()) for c in cells}
    shares, recalls = [], []
    for k in range(CLASSES):
        truth = {c for c in cells if labels[c].item() == k}
        found = {c for c in cells if answer[c] == k}
        if truth | found:
            shares.append(len(truth & found) / len(truth | found))
        if truth:
            recalls.append(len(truth & found) / len(truth))
    right = sum(answer[c] == labels[c].item() for c in cells)
    return {
        "miou": sum(shares) / len(shares),
        "pixel_accuracy": right / len(cells),
        "class_accuracy": sum(recalls) / len(recalls),
    }


def test_they_equal_loops_over_pixels():
    logits, labels = scenes()
    metric = PixelClasses()
    for part in zip(logits.split(1), labels.split(1), strict=True):
        metric.update(*part)
    assert metric.compute() == pytest.approx(by_hand(logits, labels), abs=1e-12)


def test_iou_is_of_the_whole_set_and_no_mean_over_images():
    labels = torch.tensor([[[0, 0]], [[0, 1]]])
    logits = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]], [[[1.0, 1.0]], [[0.0, 0.0]]]])
    metric = PixelClasses()
    metric.update(logits, labels)
    assert metric.compute()["miou"] == pytest.approx((3 / 4 + 0) / 2)


def test_a_class_without_a_pixel_has_no_iou():
    assert ious(confusion(*scenes())).isnan().tolist() == [False, False, False, True]


def test_a_broken_pixel_is_a_miss_and_not_a_prediction():
    logits, labels = scenes()
    logits[0, 2, 0, 0] = math.nan
    labels[0, 0, 0] = 1
    assert pixel_classes(logits)[0, 0, 0] == CLASSES
    counts = confusion(logits, labels)
    assert counts[1, CLASSES] == 1 and counts.sum() == (labels >= 0).sum()


def test_unlabelled_pixels_change_nothing():
    logits, labels = scenes()
    other = torch.where((labels < 0)[:, None], torch.randn_like(logits), logits)
    assert torch.equal(confusion(logits, labels), confusion(other, labels))


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"reads logits \[B, C, H, W\], got \[2, 3\]"):
        pixel_classes(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"need labels \[B, H, W\] of their size, got \[2, 3, 3\]"):
        confusion(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 3).long())


def test_fidelity_is_a_mean_over_pixels():
    ours, theirs = scenes()[0].double(), scenes()[0].flip(1).double()
    metric = PixelFidelity()
    for part in zip(ours.split(2), theirs.split(2), strict=True):
        metric.update(*part)
    p, q = theirs.softmax(1), ours.softmax(1)
    assert metric.compute()["kl"] == pytest.approx(float((p * (p / q).log()).sum(1).mean()))
    assert metric.compute()["agreement"] == pytest.approx(float((ours.argmax(1) == theirs.argmax(1)).double().mean()))
