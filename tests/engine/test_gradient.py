"""Gradient functions: helpers against autograd, and two user-defined ones against plain loops."""

import copy
import doctest
from dataclasses import replace
from typing import Any

import pytest
import torch
from own_gradients import ControlVariate, Gate
from test_update import batch, method, student, update
from torch import nn
from traces import outcome

from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.engine.optim import gradient as gradient_module
from kdx.engine.optim.cuda_graph import Graphed
from kdx.engine.optim.gradient import Backward, WeightedSum
from kdx.engine.optim.update import Joint
from kdx.methods.distill import Distill
from kdx.runs.run import run

NOW = Progress(2, 8, 8)
STEPS, PERIOD = 12, 3


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.flatten() for t in tensors])


def of_term(scene: Distill, name: str, size: int) -> torch.Tensor:
    """A term's weighted gradient by autograd, on a loss written out here."""
    net, data = copy.deepcopy(scene.student), batch(size)
    logits, taught = net(data.inputs).logits, scene.teacher(data.inputs).logits
    p, q = (taught / 4).softmax(1), (logits / 4).softmax(1)
    losses = {
        "ce": 0.3 * nn.functional.cross_entropy(logits, data.labels),
        "kd": 0.7 * 16 * (p * (p.log() - q.log())).sum(1).mean(),
    }
    return flat(list(torch.autograd.grad(losses[name], list(net.parameters()))))


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_gradients_of_terms_are_autograds_and_leave_grad_alone(accumulate: int):
    scene = method()
    backward = Backward(scene, accumulate, None)
    marks = [torch.full_like(p, 7.0) for p in backward.parameters]
    for p, mark in zip(backward.parameters, marks, strict=True):
        p.grad = mark
    step, found = backward.term_gradients(batch(13), NOW)
    assert set(found) == {"ce", "kd"}
    for name, gradients in found.items():
        assert torch.allclose(flat(gradients), of_term(scene, name, 13), rtol=1e-12, atol=1e-15)
    again, whole = backward.gradient(batch(13), NOW)
    assert torch.allclose(flat(whole), flat(found["ce"]) + flat(found["kd"]), rtol=1e-12, atol=1e-15)
    assert all(p.grad is mark and bool((mark == 7).all()) for p, mark in zip(backward.parameters, marks, strict=True))
    for name, value in again.terms.items():
        assert step.terms[name].item() == pytest.approx(value.item(), rel=1e-12)
    assert step.report["loss"].item() == pytest.approx(again.report["loss"].item(), rel=1e-12)
    assert not any(t.requires_grad for t in [*step.terms.values(), step.report["loss"]])


def test_a_term_that_reaches_no_parameter_has_a_zero_gradient():
    scene = method()
    plain = scene.forward
    scene.weights = {**scene.weights, "constant": 2.0}

    def forward(*given: Any) -> Any:
        step = plain(*given)
        return type(step)({"constant": torch.ones(()), **step.terms}, step.report, step.outputs)

    scene.forward = forward
    _, found = Backward(scene, 2, None).term_gradients(batch(6), NOW)
    assert flat(found["constant"]).count_nonzero() == 0 and flat(found["kd"]).count_nonzero() > 0


def test_other_values_act_within_the_block_and_leave_no_trace():
    scene = method()
    scene.student = nn.Sequential(nn.BatchNorm2d(1), scene.student).double()
    backward = Backward(scene, 1, None)
    scene.student.train()
    with torch.no_grad():
        values = [p + 1 for p in backward.parameters]
    before = copy.deepcopy(scene.state_dict())
    _, ours = backward.gradient(batch(8), NOW)
    moved = copy.deepcopy(scene.state_dict())  # batch norm statistics after one pass
    with backward.at(values):
        assert all(torch.equal(p, v) for p, v in zip(backward.parameters, values, strict=True))
        _, theirs = backward.gradient(batch(8), NOW)
    after = scene.state_dict()
    assert all(torch.equal(after[name], moved[name]) for name in after)
    assert any(not torch.equal(before[name], moved[name]) for name in before)  # the pass changes them
    assert not torch.allclose(flat(ours), flat(theirs))


def plain_svrg(scene: Distill, steps: int) -> None:
    """The loop of the control variate with SGD, written out."""
    net, velocity, snapshot, sums, seen = scene.student, None, None, None, 0

    def gradient(of: nn.Module, size: int) -> torch.Tensor:
        given = copy.copy(scene)
        given.__dict__ = {**scene.__dict__, "_modules": {**scene._modules, "student": of}}
        return of_term(given, "ce", size) + of_term(given, "kd", size)

    for step in range(steps):
        size = 4 + step % PERIOD
        if step // PERIOD % 2 == 0 and step % PERIOD == 0:
            snapshot, sums, seen = copy.deepcopy(net), 0, 0
        g, h = gradient(net, size), gradient(snapshot, size)
        if step // PERIOD % 2 == 0:
            sums, seen = sums + size * h, seen + size
        else:
            g = g - h + sums / seen
        weights = torch.cat([p.detach().flatten() for p in net.parameters()])
        g = g + 0.01 * weights
        velocity = g if velocity is None else 0.9 * velocity + g
        rate = 0.4 * min(step / 4, 1)
        nn.utils.vector_to_parameters(weights - rate * velocity, net.parameters())


def take(joint: Joint, first: int = 0, last: int = STEPS) -> None:
    for step in range(first, last):
        joint(batch(4 + step % PERIOD), Progress(step, STEPS, STEPS))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_second_gradient_is_subtracted_as_in_a_loop_by_hand(accumulate: int):
    ours, theirs, without = method(), method(), method()
    variate = ControlVariate(PERIOD)
    take(update(ours, gradient=variate, accumulate=accumulate))
    plain_svrg(theirs, STEPS)
    assert torch.allclose(student(ours), student(theirs), rtol=1e-9, atol=1e-12)
    assert variate.corrected == STEPS // 2
    take(update(without))
    assert (student(without) - student(ours)).abs().max() > 1e-3


@pytest.mark.parametrize("cut", [2, 5, 8])
def test_an_update_whose_gradient_has_state_resumes_exactly(cut: int):
    whole, first, second = method(), method(), method()
    take(update(whole, gradient=ControlVariate(PERIOD)))
    begun = update(first, gradient=ControlVariate(PERIOD))
    take(begun, 0, cut)
    resumed = update(second, gradient=ControlVariate(PERIOD))
    second.load_training_state(copy.deepcopy(first.training_state()))
    resumed.load_state_dict(copy.deepcopy(begun.state_dict()))
    take(resumed, cut)
    assert torch.equal(student(second), student(whole))


def test_the_default_adds_nothing_to_a_checkpoint():
    assert set(update(method()).state_dict()) == {"state", "param_groups"}
    assert set(update(method(), gradient=ControlVariate(1)).state_dict()) == {"state", "param_groups", "gradient"}


def test_a_gate_on_two_gradients_is_the_projection_by_hand():
    opposed = 0
    for size in range(1, 12):
        scene = method()
        before = student(scene)
        ours, theirs = of_term(scene, "ce", size), of_term(scene, "kd", size)
        inner = ours @ theirs
        if inner < 0:
            opposed += 1
            theirs = theirs - inner / (ours @ ours) * ours
        for accumulate in (1, 3):
            scene = method()
            step = update(scene, gradient=Gate("ce", "kd"), accumulate=accumulate)(batch(size), NOW)
            g = ours + theirs + 0.01 * before
            assert torch.allclose(student(scene), before - 0.2 * g, rtol=1e-10, atol=1e-13)
            assert step.report["opposed"].item() == float(inner < 0)
    assert 0 < opposed < 11  # both branches were tested


def test_a_gradient_that_no_graph_can_replay_is_refused():
    with pytest.raises(UserError, match=r"update\.gradient=Gate .* set trainer\.cuda_graph=false"):
        Graphed(update(method(), gradient=Gate("ce", "kd")), None)  # pyright: ignore[reportArgumentType]
    assert WeightedSum.recordable


def test_a_users_gradient_is_named_in_the_config_and_a_cut_run_ends_with_the_same_bits(tiny, monkeypatch):
    own = ("+update.gradient._target_=own_gradients.ControlVariate", "+update.gradient.period=2")
    fast = ("method=kd", "trainer.checkpoint_seconds=0", "trainer.log_steps=1", *own)
    undisturbed, plain = run(tiny(*fast)), run(tiny(*fast[:-2]))
    lines = outcome(undisturbed.folder)
    assert lines["lines"] != outcome(plain.folder)["lines"]
    call, seen = ControlVariate.__call__, []

    def fatal(*given: Any) -> Any:
        seen.append(1)
        if len(seen) == 6:  # in the third period, with a snapshot and a mean
            raise KeyboardInterrupt
        return call(*given)

    monkeypatch.setattr(ControlVariate, "__call__", fatal)
    cut = tiny(*fast, "fresh=true")
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    assert (undisturbed.folder / "checkpoints" / "last.pt").exists()
    monkeypatch.setattr(ControlVariate, "__call__", call)
    assert outcome(run(replace(cut, fresh=False)).folder) == lines


def test_the_example_in_the_docstring_runs():
    found = {"Gradient": gradient_module.Gradient}
    exec_failures, tried = doctest.testmod(gradient_module, extraglobs=found)
    assert tried == 1 and exec_failures == 0
    (example,) = [e for t in doctest.DocTestFinder().find(gradient_module) for e in t.examples]
    exec(example.source, found)
    scene = method()
    before, ours, theirs = student(scene), of_term(scene, "ce", 8), of_term(scene, "kd", 8)
    update(scene, gradient=found["SameSign"]())(batch(8), NOW)
    g = ours + torch.where(ours.sign() == theirs.sign(), theirs, 0.0)
    assert torch.allclose(student(scene), before - 0.2 * (g + 0.01 * before), rtol=1e-10, atol=1e-13)
