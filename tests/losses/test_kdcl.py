"""KDCL's targets against loops, a fine grid on the simplex, and closed forms."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.online.kdcl import (
    RULES,
    Consensus,
    best_mixture,
    error_covariance,
    least_error_weights,
    min_logit_target,
    naive_target,
)
from kdx.tasks.classes import image_classes

NOW = Progress(0, 10, 10)
B, C = 6, 5


def case(networks: int, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(networks)
    logits = scale * torch.randn(networks, B, C, generator=generator, dtype=torch.float64)
    labels = torch.randint(C, (B,), generator=generator)
    return logits, labels, F.one_hot(labels, C).double()


def cross_entropy(row: list[float], label: int) -> float:
    return math.log(sum(math.exp(z) for z in row)) - row[label]


@pytest.mark.parametrize("networks", [2, 3, 4])
def test_naive_takes_the_best_network_of_each_example(networks: int):
    logits, labels, targets = case(networks)
    found = naive_target(logits, targets)
    for b in range(B):
        costs = [cross_entropy(logits[k, b].tolist(), int(labels[b])) for k in range(networks)]
        assert torch.equal(found[b], logits[costs.index(min(costs)), b])


@pytest.mark.parametrize("networks", [2, 3, 4])
def test_min_logit_is_the_least_of_the_differences(networks: int):
    logits, labels, _ = case(networks)
    found = min_logit_target(logits, labels)
    for b, c in itertools.product(range(B), range(C)):
        y = int(labels[b])
        expected = min(logits[k, b, c].item() - logits[k, b, y].item() for k in range(networks))
        assert found[b, c].item() == pytest.approx(expected, abs=1e-12)
    # no network is more certain of the label
    sure = found.softmax(1).gather(1, labels[:, None]).squeeze(1)
    each = logits.softmax(2)[:, torch.arange(B), labels]
    assert (sure >= each.amax(0) - 1e-12).all()


@pytest.mark.parametrize("networks, grid", [(2, 2000), (3, 120)])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_the_best_mixture_beats_every_point_of_a_grid_on_the_simplex(networks: int, grid: int, scale: float):
    logits, labels, targets = case(networks, scale)
    weights = best_mixture(logits, targets)
    assert (weights >= 0).all() and torch.allclose(weights.sum(0), torch.ones(B, dtype=torch.float64))
    found = F.cross_entropy((weights[:, :, None] * logits).sum(0), labels, reduction="none")
    parts = [p for p in itertools.product(range(grid + 1), repeat=networks - 1) if sum(p) <= grid]
    points = torch.tensor([[*p, grid - sum(p)] for p in parts], dtype=torch.float64) / grid
    for b in range(B):
        tried = F.cross_entropy(points @ logits[:, b], labels[b].expand(len(points)), reduction="none")
        assert found[b] <= tried.min() + 1e-4
        if networks == 2:  # where the optimum is a point, it is this one
            flat = (tried < tried.min() + 1e-7).double()
            if flat.sum() < grid / 10:
                assert abs(weights[0, b].item() - points[tried.argmin(), 0].item()) < 2 / grid + 0.02


def test_the_best_mixture_of_one_certain_and_one_wrong_network_is_a_corner():
    good, bad = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]])
    weights = best_mixture(torch.stack([bad, good]).double(), torch.tensor([[1.0, 0.0, 0.0]]).double())
    assert weights[1].item() == pytest.approx(1, abs=1e-4)


def test_covariance_by_a_loop():
    logits, labels, targets = case(3)
    found = error_covariance(logits, targets)
    for k, j in itertools.product(range(3), repeat=2):
        total = 0.0
        for b, c in itertools.product(range(B), range(C)):
            y = float(c == labels[b])
            p, q = (logits[n, b].softmax(0)[c].item() - y for n in (k, j))
            total += p * q
        assert found[k, j].item() == pytest.approx(total / B, rel=1e-10)


def test_least_error_weights_against_two_networks_by_hand_and_a_search():
    c = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    w = least_error_weights(c)
    assert w[0].item() == pytest.approx((1.0 - 0.5) / (2.0 + 1.0 - 2 * 0.5), rel=1e-5)
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    c = a @ a.T + 0.1 * torch.eye(3, dtype=torch.float64)
    w = least_error_weights(c)
    assert w.sum().item() == pytest.approx(1)
    for _ in range(200):  # any other combination errs more
        step = torch.randn(3, generator=generator, dtype=torch.float64)
        other = w + 0.1 * (step - step.mean())
        assert other @ c @ other >= w @ c @ w - 1e-6
    assert torch.allclose(least_error_weights(torch.ones(3, 3).double()), torch.full((3,), 1 / 3).double(), atol=1e-4)


def exchange(rule: str, networks: int) -> Consensus:
    term = Consensus(rule, temperature=2.0, momentum=0.5)
    term.build([Shapes((C,), {})] * networks, None, image_classes(C, (1, 2, 2), 10, (0.0,), (1.0,)))
    return term.double()


@pytest.mark.parametrize("rule", RULES)
def test_all_learn_from_one_target_that_none_of_them_moves(rule: str):
    logits, labels, _ = case(3)
    members = [Outputs(z.clone().requires_grad_()) for z in logits]
    batch = Batch.of_classes(torch.zeros(B, 1), labels, torch.arange(B))
    term = exchange(rule, 3)
    value = term(members, (1,), batch, NOW)["mutual"].sum() if rule != "general" else None
    if value is None:  # the first of the turns is where the batch is counted
        term(members, (0,), batch, NOW)
        value = term(members, (1,), batch, NOW)["mutual"].sum()
    value.backward()
    assert members[1].logits.grad is not None and members[0].logits.grad is members[2].logits.grad is None
    target = term.target(logits, batch, count=False)
    p, q = (target / 2).softmax(1), (logits[1] / 2).softmax(1)
    assert value.item() == pytest.approx(4 * (p * (p.log() - q.log())).sum().item(), rel=1e-9)
    assert torch.allclose(members[1].logits.grad, 2 * (q - p), atol=1e-9)


def test_the_running_covariance_is_a_mean_from_the_first_batch_on():
    term, seen = exchange("general", 2), []
    for step in range(3):
        logits, labels, targets = case(2, scale=1.0 + step)
        batch = Batch.of_classes(torch.zeros(B, 1), labels, torch.arange(B))
        term([Outputs(z) for z in logits], (0, 1), batch, NOW)
        seen.append(error_covariance(logits, targets))
        shares = [0.5 ** (step - i) for i in range(step + 1)]
        expected = sum(s * c for s, c in zip(shares, seen, strict=True)) / sum(shares)
        assert torch.allclose(term.covariance / term.seen, expected, rtol=1e-10)
    assert {"covariance", "seen"} <= term.state_dict().keys()
    before = term.covariance.clone()
    term.eval()([Outputs(z) for z in logits], (0, 1), batch, NOW)
    assert torch.equal(term.covariance, before)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule must be one of naive, linear, min_logit, general, got 'best'"):
        Consensus("best", temperature=1.0, momentum=0.5)
