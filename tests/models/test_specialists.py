"""Consensus of a generalist and its specialists: closed forms and invariances."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kdx.models.small import MLP
from kdx.models.teachers.specialists import SpecialistConsensus, active, correction, solve, specialise

DIRECTIONS: tuple[Any, ...] = ("forward", "reverse")
G = torch.tensor([[0.507, 0.459, 0.025, 0.009]]).double()
YES = torch.ones(1, 1, dtype=torch.bool)


def solved(
    g: Tensor, specialists: list[Tensor], sets: list[list[int]], say: Tensor, direction: Any = "forward"
) -> Tensor:
    return solve(g.log(), [s.log() for s in specialists], sets, say, direction, 400).exp()


def seen(q: Tensor, classes: list[int]) -> Tensor:
    rest = [c for c in range(q.shape[1]) if c not in classes]
    return torch.cat([q[:, classes], q[:, rest].sum(1, keepdim=True)], 1)


def objective(q: Tensor, g: Tensor, specialists: list[Tensor], sets: list[list[int]], direction: str) -> Tensor:
    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum(1)

    pairs = [(g, q), *((p, seen(q, classes)) for p, classes in zip(specialists, sets, strict=True))]
    return sum((kl(a, b) if direction == "forward" else kl(b, a) for a, b in pairs), torch.zeros(len(q)).double())


def test_a_single_specialist_has_a_closed_form():
    p = torch.tensor([[0.10, 0.85, 0.05]]).double()
    q = solved(G, [p], [[0, 1]], YES)
    # the mean for classes of both; the mean of the rest, split in the generalist's proportions
    rest = (G[0, 2:].sum() + p[0, 2]) / 2
    expected = torch.cat([(G[0, :2] + p[0, :2]) / 2, rest * G[0, 2:] / G[0, 2:].sum()])
    torch.testing.assert_close(q[0], expected)
    assert float(objective(G, G, [p], [[0, 1]], "forward")) == pytest.approx(0.3807, abs=1e-4)
    assert float(objective(q, G, [p], [[0, 1]], "forward")) == pytest.approx(0.2099, abs=1e-4)


def test_a_single_specialist_in_the_other_direction_has_one_too():
    p = torch.tensor([[0.10, 0.85, 0.05]]).double()
    q = solved(G, [p], [[0, 1]], YES, "reverse")
    # q_rest log q_rest counts twice for the rest as a whole: stationary at sqrt(g p) for what both see
    rest = G[0, 2:].sum()
    whole = torch.cat([(G[0, :2] * p[0, :2]).sqrt(), (rest * p[0, 2]).sqrt().view(1)])
    whole = whole / whole.sum()
    expected = torch.cat([whole[:2], whole[2] * G[0, 2:] / rest])
    torch.testing.assert_close(q[0], expected)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_is_the_minimum(direction: Any):
    torch.manual_seed(0)
    sets = [[4, 0, 2], [1, 2], [5, 4, 3, 1]]
    g = (2 * torch.randn(5, 6)).double().softmax(1)
    specialists = [(2 * torch.randn(5, len(classes) + 1)).double().softmax(1) for classes in sets]
    q = solved(g, specialists, sets, YES.expand(5, 3), direction)
    # the paper's gradient in the logits of q vanishes
    z = q.log().requires_grad_()
    (slope,) = torch.autograd.grad(objective(z.softmax(1), g, specialists, sets, direction).sum(), z)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)
    found = objective(q, g, specialists, sets, direction)
    assert (found < objective(g, g, specialists, sets, direction)).all()
    for _ in range(50):
        near = (q.log() + 0.01 * torch.randn(5, 6).double()).softmax(1)
        assert (objective(near, g, specialists, sets, direction) >= found - 1e-12).all()


def test_no_step_goes_up():
    torch.manual_seed(0)
    sets = [[4, 0, 2], [1, 2], [5, 4, 3, 1]]
    g = (4 * torch.randn(7, 6)).double()
    specialists = [(4 * torch.randn(7, len(classes) + 1)).double() for classes in sets]
    say = YES.expand(7, 3)
    path = [solve(g, specialists, sets, say, "forward", steps).exp() for steps in range(1, 12)]
    probs = [s.softmax(1) for s in specialists]
    values = torch.stack([objective(q, g.softmax(1), probs, sets, "forward") for q in path])
    assert (values[1:] <= values[:-1] + 1e-12).all() and (values[1] < values[0]).all()


def test_a_sure_generalist_is_outvoted_all_the_same():
    q = solve(torch.tensor([[60.0, 0, 0]]), [torch.tensor([[0.0, 60, 0]])], [[0, 1]], YES, "forward", 1)
    torch.testing.assert_close(q.exp()[0, :2], torch.tensor([0.5, 0.5]))
    assert q.isfinite().all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_specialists_of_everything_make_it_a_mean(direction: Any):
    torch.manual_seed(0)
    g, one, two = (torch.randn(4, 5).double().softmax(1) for _ in range(3))
    padded = [torch.cat([p, torch.zeros(4, 1).double()], 1) for p in (one, two)]  # a rest of probability 0
    q = solved(g, padded, [list(range(5))] * 2, torch.ones(4, 2, dtype=torch.bool), direction)
    arithmetic = (g + one + two) / 3
    geometric = (g.log() + one.log() + two.log()).div(3).softmax(1)
    torch.testing.assert_close(q, arithmetic if direction == "forward" else geometric)
    assert not torch.allclose(arithmetic, geometric, atol=1e-3)


def test_without_a_say_the_generalist_stays_to_the_bit():
    torch.manual_seed(0)
    g, p = torch.randn(3, 4).softmax(1), torch.randn(3, 3).softmax(1)
    say = torch.tensor([[False], [True], [False]])
    q = solve(g.log(), [p.log()], [[0, 1]], say, "forward", 50)
    assert torch.equal(q[[0, 2]], g.log().log_softmax(1)[[0, 2]]) and not torch.allclose(q[1].exp(), g[1], atol=1e-3)
    none = solve(g.log(), [p.log()], [[0, 1]], say & False, "forward", 50)
    assert torch.equal(none, g.log().log_softmax(1))


def test_each_sample_is_solved_by_itself():
    torch.manual_seed(0)
    g, p = torch.randn(6, 4).double().softmax(1), torch.randn(6, 3).double().softmax(1)
    say = torch.tensor([[True], [False], [True], [True], [False], [True]])
    together = solved(g, [p], [[3, 1]], say)
    for i in range(6):
        torch.testing.assert_close(together[[i]], solved(g[[i]], [p[[i]]], [[3, 1]], say[[i]]))


def test_it_solves_where_gradients_are_off_and_leaves_none_behind():
    with torch.no_grad():
        q = solved(G, [torch.tensor([[0.1, 0.85, 0.05]]).double()], [[0, 1]], YES)
    assert not q.requires_grad and q[0, 1] > 0.6


def test_a_specialist_starts_with_the_rows_of_its_classes_and_the_mean_of_the_rest():
    torch.manual_seed(0)
    net = MLP(hidden=[7], dropout=0.0, activation="relu", num_classes=6, input_shape=[1, 2, 2]).double()
    x = torch.randn(9, 1, 2, 2).double()
    before = net(x)
    specialise(net, [4, 1])
    after = net(x)
    torch.testing.assert_close(after.logits[:, :2], before.logits[:, [4, 1]])
    others = before.logits[:, [0, 2, 3, 5]]
    torch.testing.assert_close(after.logits[:, 2], others.mean(1) + math.log(4))
    assert (after.logits[:, 2] < others.logsumexp(1)).all()
    torch.testing.assert_close(after.feature("pooled"), before.feature("pooled"))
    assert net.fc.out_features == 3 and all(p.requires_grad for p in net.parameters())
    # if the generalist's other logits are equal, the specialist starts exactly at its predictions
    with torch.no_grad():
        net = MLP(hidden=[7], dropout=0.0, activation="relu", num_classes=6, input_shape=[1, 2, 2]).double()
        net.fc.weight[2:] = net.fc.weight[2]
        net.fc.bias[2:] = net.fc.bias[2]
    said = net(x).logits.softmax(1)
    specialise(net, [0, 1])
    torch.testing.assert_close(net(x).logits.softmax(1), torch.cat([said[:, :2], said[:, 2:].sum(1, keepdim=True)], 1))


@pytest.mark.parametrize("classes", [[], [0, 1, 2], [1, 3], [-1], [1, 1]])
def test_a_specialist_knows_some_of_the_classes(classes: list[int]):
    net = MLP(hidden=[4], dropout=0.0, activation="relu", num_classes=3, input_shape=[1, 2, 2])
    with pytest.raises(ValueError, match="proper subset of the network's 3"):
        specialise(net, classes)
    assert net(torch.zeros(2, 1, 2, 2)).logits.shape == (2, 3)


def test_who_has_a_say_knows_one_of_the_likely_classes():
    logits = torch.tensor([[5.0, 4.0, 1.0, 0.0], [0.0, 1.0, 4.0, 5.0]])
    sets = [[0], [1, 2], [3, 0]]
    assert active(logits, sets, 1).tolist() == [[True, False, True], [False, False, True]]
    assert active(logits, sets, 2).tolist() == [[True, True, True], [False, True, True]]
    with pytest.raises(ValueError, match="top=5 exceeds"):
        active(logits, sets, 5)


def test_the_correction_undoes_another_sampling():
    """Bayes: training on balanced groups gives the odds of that prior; the correction gives those of the true prior."""
    share, likelihood = 0.1, 3.0  # share of its classes; likelihood ratio for them against the rest
    trained = likelihood * 0.5 / 0.5
    true = likelihood * share / (1 - share)
    assert math.exp(math.log(trained) - correction(share, 0.5)) == pytest.approx(true)
    assert correction(0.3, 0.3) == pytest.approx(0) and correction(0.1, 0.5) == pytest.approx(math.log(9))
    with pytest.raises(ValueError, match=r"lie in \(0, 1\)"):
        correction(0.0, 0.5)


def test_a_third_direction_is_refused():
    wrong: Any = "both"
    with pytest.raises(ValueError, match="forward"):
        solved(G, [G], [[0, 1, 2]], YES, wrong)


def test_members_agree_with_their_dustbins_corrected():
    torch.manual_seed(0)
    logits = [torch.randn(6, 3), torch.randn(6, 5), torch.randn(6, 4)]
    sets = [[1, 4], None, [0, 2, 3]]  # in any order; None is the generalist
    rule = SpecialistConsensus(sets, [0.5, 0.5, 0.25], [None, None, 0.7], 2, "forward", 30)
    # odds of its own classes in training over true odds: 2 of 5 classes, and 0.7
    shifts = [math.log((0.5 / 0.5) / (0.4 / 0.6)), math.log((0.25 / 0.75) / (0.7 / 0.3))]
    corrected = [v + torch.tensor([0.0] * (v.shape[1] - 1) + [s]) for v, s in zip(logits[::2], shifts, strict=True)]
    say = active(logits[1], [[1, 4], [0, 2, 3]], 2)
    wanted = solve(logits[1], corrected, [[1, 4], [0, 2, 3]], say, "forward", 30)
    torch.testing.assert_close(rule(logits), wanted)
    assert not torch.allclose(wanted, solve(logits[1], logits[::2], [[1, 4], [0, 2, 3]], say, "forward", 30))


def test_specialists_need_one_generalist():
    for sets in ([None, None, [1]], [[1], [0]], [None]):
        with pytest.raises(ValueError, match="one generalist"):
            SpecialistConsensus(sets, [0.5] * len(sets), [None] * len(sets), 1, "forward", 10)
