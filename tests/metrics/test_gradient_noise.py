"""Noise of gradients and the floor of the training loss, against loops, a grid search and scipy."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn
from traces import outcome

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.evals.floor import Floor
from kdx.evals.gradients import GradientNoise
from kdx.metrics.gradients import noise
from kdx.models.small import MLP, Linear
from kdx.models.teachers.frozen import Frozen
from kdx.runs.run import run
from kdx.tasks.classes import Classes

SHAPE, CLASSES, SIZE = (1, 2, 2), 3, 20
CPU = torch.device("cpu")


def vectors(n: int = 7, p: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.randn(n, p, dtype=torch.float64)
    return g, 0.5 * g + torch.randn(n, p, dtype=torch.float64) + 0.3


def net(hidden: bool = False) -> nn.Module:
    made = MLP([5], 0.0, "tanh", CLASSES, SHAPE) if hidden else Linear(CLASSES, SHAPE)
    for p in made.parameters():
        nn.init.normal_(p)
    return made


def batches() -> list[Batch]:
    inputs, labels = torch.randn(SIZE, *SHAPE), torch.randint(CLASSES, (SIZE,))
    return [
        Batch.of_classes(inputs[i : i + 8], labels[i : i + 8], torch.arange(i, min(i + 8, SIZE))) for i in (0, 8, 16)
    ]


def test_facts_of_the_noise_are_a_loop():
    g, h = (t.numpy() for t in vectors())
    found = noise(torch.from_numpy(g), torch.from_numpy(h), 0.6, 0.05)
    n = len(g)
    gm, hm = sum(g) / n, sum(h) / n
    variance = sum(float((x - gm) @ (x - gm)) for x in g) / n
    other = sum(float((x - hm) @ (x - hm)) for x in h) / n
    shared = sum(float((x - gm) @ (y - hm)) for x, y in zip(g, h, strict=True)) / n
    left = sum(float(d @ d) for d in [(x - gm) - 0.6 * (y - hm) for x, y in zip(g, h, strict=True)]) / n
    second = sum(float(y @ y) for y in h) / n
    expected = {
        "variance": variance,
        "remaining": left / variance,
        "bias": float(hm @ hm),
        "correlation": shared / (variance * other) ** 0.5,
        "weight_noise": shared / second,
        "weight_bound": shared / (second + float(hm @ hm) / 0.05),
    }
    assert found == pytest.approx(expected)


def test_the_best_weights_minimise_what_they_claim():
    g, h = vectors(40)
    g = g - g.mean(0)  # at an optimum, the mean gradient is zero
    found = noise(g, h, 0.0, 0.05)
    grid = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    second = [float((g - w * h).square().sum(1).mean()) for w in grid]
    bias = float(h.mean(0).square().sum())
    bound = [value + float(w) ** 2 * bias / 0.05 for value, w in zip(second, grid, strict=True)]
    assert found["weight_noise"] == pytest.approx(float(grid[int(np.argmin(second))]), abs=1e-4)
    assert found["weight_bound"] == pytest.approx(float(grid[int(np.argmin(bound))]), abs=1e-4)


def test_equal_gradients_cancel_and_constant_ones_have_no_correlation():
    g, _ = vectors()
    same = noise(g, g, 1.0, None)
    assert same["remaining"] == pytest.approx(0) and same["correlation"] == pytest.approx(1)
    assert "weight_bound" not in same
    still = noise(g, torch.ones_like(g), 0.5, None)
    assert "correlation" not in still and still["remaining"] == pytest.approx(1) and still["weight_noise"] == 0


def measured(student: nn.Module, teacher: nn.Module, data: list[Batch], **changed: object) -> dict[str, float]:
    settings = {"batch_size": 4, "limit": 100, "weight": 0.6, "l2": 0.01, "rate": 0.1, "curvature": 0.5} | changed
    evaluator = GradientNoise(
        **settings,  # pyright: ignore[reportArgumentType]
        loaders={"train": data},
        device=CPU,
        task=Classes(CLASSES),
        split="train",
        every=None,
    )
    with torch.no_grad():
        found = evaluator.run({"student": student, "teacher": Frozen(teacher, None, None)})
    return {name.removeprefix("gradients/train/"): value for name, value in found.items()}


@pytest.mark.parametrize("hidden", [False, True])
def test_the_evaluator_is_a_loop_over_minibatches(hidden: bool):
    student, teacher, data = net(hidden), net(hidden), batches()
    found = measured(student, teacher, data)
    own, mine, theirs, cosines = copy.deepcopy(teacher).requires_grad_(True), [], [], []

    def gradient(of: nn.Module, loss: Tensor, l2: float = 0.01) -> Tensor:
        parts = torch.autograd.grad(loss, list(of.parameters()))
        return torch.cat([(g + l2 * p.detach()).flatten() for g, p in zip(parts, of.parameters(), strict=True)])

    for batch in data:
        for i in range(0, len(batch) - 3, 4):
            x, y = batch.input_tensor[i : i + 4], batch.labels[i : i + 4]
            logits = student(x).logits
            soft = own(x).logits.softmax(1).detach()
            kl = (soft * (soft.log() - logits.log_softmax(1))).sum(1).mean()
            mixed = gradient(student, 0.4 * F.cross_entropy(student(x).logits, y) + 0.6 * kl, 0.0)
            g, h = (gradient(n, F.cross_entropy(n(x).logits, y), 0.0) for n in (student, own))
            cosines.append(float(F.cosine_similarity(g - 0.6 * h, mixed, dim=0)))
            mine.append(gradient(student, F.cross_entropy(student(x).logits, y)))
            theirs.append(gradient(own, F.cross_entropy(own(x).logits, y)))
    assert len(mine) == 5
    expected = noise(torch.stack(mine), torch.stack(theirs), 0.6, 0.05)
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-4)
    assert found["cosine"] == pytest.approx(sum(cosines) / 5, abs=1e-5)
    assert found["cosine"] == pytest.approx(1, abs=1e-5) if not hidden else found["cosine"] < 0.999


def test_the_number_of_minibatches_has_a_limit():
    student, teacher, data = net(), net(), batches()
    assert measured(student, teacher, data, limit=2) == measured(student, teacher, data[:1], limit=100)


def test_rate_and_curvature_belong_together():
    with pytest.raises(ValueError, match="rate and curvature"):
        measured(net(), net(), batches(), rate=None)


def floor(data: list[Batch], **changed: object) -> Floor:
    settings = {"average": 2, "l2": 0.1, "optimum": True} | changed
    own = {"loaders": {"train": data}, "device": CPU, "task": Classes(CLASSES), "split": "train", "every": 1}
    return Floor(**settings, **own)  # pyright: ignore[reportArgumentType]


def objective(net: nn.Module, data: list[Batch]) -> float:
    losses = [
        -net(b.input_tensor[i : i + 1]).logits.log_softmax(1)[0, b.labels[i]] for b in data for i in range(len(b))
    ]
    return float(sum(losses)) / SIZE + 0.05 * sum(float(p.square().sum()) for p in net.parameters())


@torch.no_grad()
def test_the_floor_is_the_mean_of_the_last_losses_above_scipys_optimum():
    data, evaluator = batches(), None
    nets = [net() for _ in range(3)]
    evaluator = floor(data)
    found = [evaluator.run({"student": each}) for each in nets]
    losses = [objective(each, data) for each in nets]
    assert [f["train/objective"] for f in found] == pytest.approx(losses, rel=1e-5)

    x = torch.cat([b.input_tensor.flatten(1) for b in data]).double().numpy()
    y = torch.cat([b.labels for b in data]).numpy()

    def whole(flat: np.ndarray) -> float:
        w, b = flat[: CLASSES * 4].reshape(CLASSES, 4), flat[CLASSES * 4 :]
        z = x @ w.T + b
        z = z - z.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]) + 0.05 * flat @ flat)

    least = minimize(whole, np.ones(CLASSES * 5), method="BFGS", options={"gtol": 1e-9}).fun
    assert found[2]["train/floor"] == pytest.approx((losses[1] + losses[2]) / 2 - least, abs=1e-5)
    assert found[0]["train/floor"] == pytest.approx(losses[0] - least, abs=1e-5)
    taught = evaluator.run({"student": nets[0], "teacher": Frozen(copy.deepcopy(nets[1]), None, None)})
    assert taught["train/teacher_floor"] == pytest.approx(losses[1] - least, abs=1e-5)


@torch.no_grad()
def test_a_resumed_floor_remembers_earlier_losses():
    data, first, second = batches(), net(), net()
    evaluator = floor(data)
    evaluator.run({"student": first})
    resumed = floor(data)
    resumed.load_state_dict(evaluator.state_dict())
    assert resumed.run({"student": second}) == evaluator.run({"student": second})


@torch.no_grad()
def test_a_floor_above_the_optimum_is_of_linear_models_alone():
    data = batches()
    with pytest.raises(UserError, match="needs a linear model"):
        floor(data).run({"student": net(hidden=True)})
    found = floor(data, optimum=False, average=1).run({"student": net(hidden=True)})
    assert found["train/floor"] == found["train/objective"]


def test_a_cut_run_ends_with_the_same_floor(tiny, monkeypatch):
    every = ("trainer.checkpoint_seconds=0", "trainer.log_steps=1", "method=supervised")
    own = "{_target_: kdx.evals.floor.Floor, split: train, average: 3, l2: 0, optimum: false, every: 0.25}"
    fast = (*every, f"+evals.floor={own}")
    undisturbed = run(tiny(*fast))
    lines = outcome(undisturbed.folder)
    floors = [line["train/floor"] for line in lines["lines"] if "train/floor" in line]
    objectives = [line["train/objective"] for line in lines["lines"] if "train/floor" in line]
    assert len(floors) > 4 and floors[-1] == pytest.approx(sum(objectives[-3:]) / 3) != pytest.approx(objectives[-1])
    plain, seen = Floor.run, []

    def fatal(self, models):
        seen.append(1)
        if len(seen) == len(floors):  # the last evaluation
            raise KeyboardInterrupt
        return plain(self, models)

    monkeypatch.setattr(Floor, "run", fatal)
    cut = tiny(*fast, "fresh=true")
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    monkeypatch.setattr(Floor, "run", plain)
    assert outcome(run(dataclasses.replace(cut, fresh=False)).folder) == lines
