"""A network with exits: what they learn, whom they move, and what they are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.methods.exits import Exits
from kdx.models.cifar.resnet import ResNet
from kdx.models.small import MLP
from kdx.tasks.classes import image_classes

SPEC = image_classes(3, (2, 9, 9), 32, (0.0,), (1.0,))
NOW = Progress(1, 8, 8)
WEIGHTS = {"ce": 0.9, "kd": 0.1, "hint": 1e-4}


def exits(net: nn.Module | None = None, **changed) -> Exits:
    torch.manual_seed(0)
    net = ResNet(depth=8, widths=(3, 3, 4, 5), num_classes=3, in_channels=2) if net is None else net
    settings = {"weights": WEIGHTS, "temperature": 3.0, "label_smoothing": 0.0, "roles": None}
    return Exits(net, SPEC, **settings | changed).double().train()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch.of_classes(
        torch.randn(4, 2, 9, 9, generator=generator, dtype=torch.float64), torch.arange(4) % 3, torch.arange(4)
    )


def test_the_terms_sum_over_the_exits():
    method, data = exits(), batch()
    whole = method.student(data.inputs)
    early = [e(whole.features[f"stage{i}"]) for i, e in enumerate(method.exits, 1)]
    step = method(data, NOW)
    assert len(early) == 2
    ce = sum(F.cross_entropy(o.logits, data.labels) for o in (whole, *early))
    p = (whole.logits / 3).log_softmax(1)
    kd = sum(9 * (p.exp() * (p - (o.logits / 3).log_softmax(1))).sum(1).mean() for o in early)
    hint = 0.0
    for o in early:
        s, t = o.features["pooled"], whole.features["pooled"]
        hint += ((s - t).square() * ((s > 0) | (t > 0))).sum(1).mean()
    for name, expected in (("ce", ce), ("kd", kd), ("hint", hint)):
        assert step.terms[name].item() == pytest.approx(expected.item(), rel=1e-8), name


def test_what_the_last_classifier_teaches_does_not_move_it():
    method = exits()
    step = method(batch(), NOW)
    for name in ("kd", "hint"):
        found = torch.autograd.grad(
            step.terms[name], list(method.student.parameters()), allow_unused=True, retain_graph=True
        )
        moved = {n for (n, _), g in zip(method.student.named_parameters(), found, strict=True) if g is not None}
        assert moved and not any(n.startswith(("layer3", "fc")) for n in moved)


def test_exits_are_whole_networks_for_evaluation():
    method, data = exits().eval(), batch()
    models = method.models()
    assert list(models) == ["student", "exit1", "exit2"]
    features = method.student(data.inputs).features
    for i in (1, 2):
        assert torch.equal(models[f"exit{i}"](data.inputs).logits, method.exits[i - 1](features[f"stage{i}"]).logits)


def test_vectors_have_exits_too():
    facts = {"dropout": 0.0, "activation": "relu", "num_classes": 3, "input_shape": (2, 9, 9)}
    method = exits(MLP(hidden=(7, 6, 5), **facts))
    assert method.roles == ["stage1", "stage2"]
    assert all(t.isfinite() for t in method(batch(), NOW).terms.values())
    assert exits(MLP(hidden=(7, 6, 5), **facts), roles=["stage2"]).roles == ["stage2"]


def test_what_cannot_be_is_refused_in_a_sentence():
    shallow = MLP(hidden=(7,), dropout=0.0, activation="relu", num_classes=3, input_shape=(2, 9, 9))
    with pytest.raises(UserError, match="the student needs at least two stages; it has: stage1"):
        exits(shallow)
    with pytest.raises(UserError, match="no feature with role 'stage7'"):
        exits(roles=["stage7"])
    with pytest.raises(UserError, match="on one side only: hint"):
        exits(weights={"ce": 1.0, "kd": 1.0})
