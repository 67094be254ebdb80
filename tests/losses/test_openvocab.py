"""Losses of open-vocabulary detection against loops, closed forms and invariances."""

import math

import pytest
import torch
from torch import Tensor

from kdx.losses.openvocab.classes import seen_class_loss
from kdx.losses.openvocab.region_distillation import embedding_distance, relation_distance

K, D = 4, 6


def pair(batch: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    mine, theirs = (torch.randn(batch, K, D, generator=g, dtype=torch.float64) for _ in range(2))
    return mine, theirs


def scaled(x: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(v * v for v in x))
    return [v / length for v in x]


def gram_rows(x: Tensor) -> list[list[float]]:
    rows = [scaled(row) for row in x.flatten(0, 1).tolist()]
    return [scaled([math.fsum(a * b for a, b in zip(r, s, strict=True)) for s in rows]) for r in rows]


def test_embedding_distance_is_the_mean_over_a_scenes_numbers():
    mine, theirs = pair()
    for b, found in enumerate(embedding_distance(mine, theirs).tolist()):
        gaps = [
            abs(x - y)
            for s, t in zip(mine[b].tolist(), theirs[b].tolist(), strict=True)
            for x, y in zip(scaled(s), scaled(t), strict=True)
        ]
        assert found == pytest.approx(math.fsum(gaps) / (K * D), rel=1e-12)


def test_relation_distance_is_the_mean_over_rows_of_the_gram_matrices():
    mine, theirs = pair()
    rows = [
        math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        for a, b in zip(gram_rows(mine), gram_rows(theirs), strict=True)
    ]
    found = relation_distance(mine, theirs)
    assert found.shape == (3,)
    for b in range(3):
        assert float(found[b]) == pytest.approx(math.fsum(rows[b * K : (b + 1) * K]) / K, rel=1e-12)


def test_relation_distance_is_zero_iff_the_gram_rows_are_equal():
    mine, theirs = pair()
    rotation, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64))
    assert float(relation_distance(2 * theirs @ rotation, theirs).max()) < 1e-24
    moved = theirs.clone()
    moved[1, 2] += 1e-3 * torch.randn(D, dtype=torch.float64)
    assert float(relation_distance(moved, theirs).max()) > 1e-12
    assert float(relation_distance(mine, theirs).min()) > 1e-3


def test_the_relations_of_a_batch_given_twice_are_no_larger():
    # the sum over rows of the public code would double
    mine, theirs = pair()
    twice = relation_distance(torch.cat([mine, mine]), torch.cat([theirs, theirs])).mean()
    torch.testing.assert_close(twice, relation_distance(mine, theirs).mean())


def test_missing_proposals_count_nowhere():
    mine, theirs = pair()
    theirs[0, 3] = 0
    theirs[2] = 0
    other = mine.clone()
    other[0, 3], other[2] = 7.0, -3.0
    for loss in (embedding_distance, relation_distance):
        assert torch.equal(loss(mine, theirs), loss(other, theirs)) and loss(mine, theirs)[2] == 0
    kept = embedding_distance(mine[:1, :3], theirs[:1, :3])
    torch.testing.assert_close(embedding_distance(mine, theirs)[:1], kept)
    assert float(relation_distance(mine[2:], theirs[2:]).abs().sum()) == 0  # no proposal at all


def test_the_teacher_gets_no_gradient():
    mine, theirs = (t.requires_grad_() for t in pair())
    (embedding_distance(mine, theirs) + relation_distance(mine, theirs)).sum().backward()
    assert theirs.grad is None and mine.grad is not None and bool((mine.grad != 0).any())


def test_novel_columns_get_no_gradient_and_others_that_of_a_loop():
    g = torch.Generator().manual_seed(4)
    logits = torch.randn(5, 3, generator=g, dtype=torch.float64).requires_grad_()
    labels, owner = torch.tensor([0, 3, 2, -1, 0]), torch.tensor([0, 0, 1, 1, 1])
    seen = torch.tensor([True, False, True])
    found = seen_class_loss(logits, labels, seen, owner, 3)
    rows = []
    for z, label in zip(logits.tolist(), labels.tolist(), strict=True):
        one = [math.log1p(math.exp(-v if c == label else v)) for c, v in enumerate(z) if c != 1]
        rows.append(0.0 if label < 0 else math.fsum(one))
    assert found.tolist() == pytest.approx([(rows[0] + rows[1]) / 2, (rows[2] + rows[4]) / 2, 0.0], rel=1e-12)
    found.sum().backward()
    assert logits.grad is not None
    assert bool((logits.grad[:, 1] == 0).all()) and bool((logits.grad[:3, ::2] != 0).all())
    assert bool((logits.grad[3] == 0).all())


def test_a_background_region_lowers_every_seen_class():
    logits = torch.zeros(1, 4, requires_grad=True)
    seen_class_loss(logits, torch.tensor([4]), torch.ones(4).bool(), torch.zeros(1), 1).sum().backward()
    assert logits.grad is not None and bool((logits.grad == 0.5).all())
