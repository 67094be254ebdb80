"""Composed distillers: known ones are instances, and every combination that can be written has a use."""

import itertools
import re
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from law_case import SPEC, START, STUDENT, TEACHER
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.losses.base.term import Term
from kdx.losses.composed.composed import Composed, composed
from kdx.losses.composed.rules import (
    AXIS_FREE,
    LAYOUTS,
    Attention,
    Chain,
    Distance,
    Normalise,
    Scope,
    wrong,
    wrong_for_size,
    wrong_for_vectors,
)
from kdx.losses.composed.transforms import DROPPED
from kdx.losses.features.at import AT
from kdx.losses.features.cwd import CWD
from kdx.losses.features.fitnet import FitNet
from kdx.losses.logits.dist import DIST
from kdx.losses.logits.kd import KD
from kdx.losses.relations.sp import SP

KNOWN: dict[str, tuple[Term, dict[str, Any]]] = {
    "KD": (KD(4.0, "batchmean"), {"roles": "logits", "chain": "none none softmax_channels kl", "temperature": 4.0}),
    "FitNet": (
        FitNet("stage2", "stage2"),
        {"roles": ["stage2"], "align": "regressor", "chain": "none none none mse"},
    ),
    "FitNet of a vector": (
        FitNet("pooled", "pooled"),
        {"roles": ["pooled"], "align": "regressor", "chain": "none none none mse"},
    ),
    "AT": (AT(None, 2.0), {"roles": None, "chain": "energy none unit_positions mse"}),
    "SP": (SP("stage2", "stage2"), {"roles": ["stage2"], "chain": "none examples unit_channels mse"}),
    "CWD": (
        CWD("stage2", "stage2", 4.0),
        {"roles": ["stage2"], "align": "channels", "chain": "none none softmax_positions kl", "temperature": 4.0},
    ),
    "DIST": (
        DIST(1.0, 1.0, 4.0),
        {"roles": "logits", "chain": "none none softmax_channels pearson_both", "temperature": 4.0},
    ),
}


def make(roles: Any, chain: str, align: str = "none", temperature: float | None = None) -> Composed:
    attention, scope, normalise, distance = chain.split()
    parts: Any = {"attention": attention, "scope": scope, "normalise": normalise, "distance": distance}
    return Composed(roles=roles, align=align, temperature=temperature, **parts)  # pyright: ignore[reportArgumentType]


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    features = {role: torch.randn(6, *shape, generator=generator, requires_grad=True) for role, shape in shapes.items()}
    return Outputs(torch.randn(6, 5, generator=generator, requires_grad=True), features)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_distiller_is_an_instance(name: str):
    known, parts = KNOWN[name]
    ours = make(**parts)
    given = Shapes((5,), STUDENT), Shapes((5,), TEACHER), SPEC
    torch.manual_seed(0)
    for term in (known, ours):
        term.build(*given)
    layers = [*known.children()]
    if layers:  # FitNet's regressor and CWD's convolution
        ours.aligns[0].load_state_dict(layers[0].state_dict())
    batch = Batch.of_classes(torch.zeros(6, 1), torch.arange(6) % 5, torch.arange(6))
    found = []
    for term in (known, ours):
        student, teacher = drawn(STUDENT, 1), drawn(TEACHER, 2)
        rows = term(student, teacher, batch, START)
        inputs = [student.logits, *student.features.values()]
        found.append((rows, torch.autograd.grad(rows.mean(), inputs, allow_unused=True)))
    (value, gradients), (other, others) = found
    assert value.mean() > 0
    torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(gradients, others, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-7)


def every() -> list[Chain]:
    slots = itertools.product(*map(get_args, (Attention, Scope, Normalise, Distance)))
    return [
        Chain(attention=a, scope=s, normalise=n, distance=d, temperature=2.0 if n.startswith("softmax") else None)
        for a, s, n, d in slots
    ]


def maps(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # small, so that a softmax over products of pairs is not saturated
    return torch.randn(4, 3, 4, 4, generator=generator).double().mul(0.3).requires_grad_()


def test_every_combination_that_can_be_written_is_minimal_at_the_teacher_and_learns():
    """All chains on maps of 4 x 4: lowest at equal features, without a gradient; with a gradient at others."""
    mask, written = torch.ones(4, 1, 4, 4).double(), 0
    for chain in every():
        if wrong(chain) or wrong_for_size(chain, 3, (4, 4)):
            continue
        written += 1
        student, teacher = maps(1), maps(2)
        equal = composed(teacher, teacher, chain, mask)
        apart = composed(student, teacher, chain, mask)
        assert equal.shape == apart.shape == (4,), chain
        assert (equal <= apart).all(), chain
        if "pearson" not in chain.distance:  # the correlation with a constant is 0
            assert equal.abs().max() < 1e-9, chain
        (gradient,) = torch.autograd.grad(equal.sum(), [teacher], allow_unused=True)
        assert gradient is not None and gradient.abs().max() < 1e-7, chain
        assert (apart > 0).all(), chain
        (gradient,) = torch.autograd.grad(apart.sum(), [student])
        assert gradient.isfinite().all() and gradient.abs().max() > 1e-9, chain
    assert written > 800


def test_a_refused_combination_has_no_gradient_or_repeats_a_simpler_one():
    mask, refused = torch.ones(4, 1, 4, 4).double(), 0
    for chain in every():
        if not (wrong(chain) or "").startswith(("attention=energy leaves one channel:", "normalise=")):
            continue
        refused += 1
        student, teacher = maps(1), maps(2)
        if chain.normalise in LAYOUTS and chain.distance in AXIS_FREE:
            parts: Any = {"scope": chain.scope, "attention": chain.attention, "distance": chain.distance}
            simple = Chain(normalise="none", temperature=None, **parts)
            values = [composed(student, teacher, c, mask) for c in (chain, simple)]
            torch.testing.assert_close(*values)
        else:
            value = composed(student, teacher, chain, mask)
            if chain.distance == "pearson_both":  # its other half learns
                value = value - composed(student, teacher, replace(chain, distance="pearson_examples"), mask)
            (gradient,) = torch.autograd.grad(value.sum(), [student])
            assert gradient.abs().max() < 1e-9, chain
    assert refused > 50


def test_a_chain_that_fits_vectors_learns_from_logits():
    for chain in every():
        if wrong_for_vectors(chain) or wrong_for_size(chain, 3, (1, 1)):
            continue
        student, teacher = (m[:, :, :1, :1].detach().requires_grad_() for m in (maps(1), maps(2)))
        (gradient,) = torch.autograd.grad(composed(student, teacher, chain, None).sum(), [student])
        assert gradient.isfinite().all() and gradient.abs().max() > 1e-9, chain


def test_a_mask_is_drawn_in_training_alone_and_shared_by_both_sides():
    term = make(["final"], "mask none none l1")
    shapes = {"final": (3, 40, 40)}
    term.build(Shapes((5,), shapes), Shapes((5,), shapes), SPEC)
    student, teacher = drawn(shapes, 1), drawn(shapes, 2)
    batch = Batch.of_classes(torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64), torch.arange(6))
    whole = term.eval()(student, teacher, batch, START).mean()
    kept = term.train()(student, teacher, batch, START).mean()
    # the mean over all positions shrinks to the share that is kept
    assert float(kept.detach() / whole.detach()) == pytest.approx(1 - DROPPED, abs=0.05)
    assert term(student, student, batch, START).abs().max() == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"roles": "logits", "chain": "spatial none none mse"}, "attention=spatial needs a map"),
        ({"roles": "logits", "chain": "none none none kl"}, "distance=kl compares distributions"),
        ({"roles": ["final"], "chain": "none none none mse", "temperature": 4.0}, "temperature must be null"),
        ({"roles": ["final"], "chain": "none none softmax_channels kl"}, "needs a temperature"),
        ({"roles": "logits", "chain": "none none none mse", "align": "channels"}, "write align=none"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make(**parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"roles": ["stage2"], "chain": "none none none mse"}, "write align=channels"),
        ({"roles": ["pooled"], "chain": "none pool2 none mse", "align": "channels"}, "vector 'pooled': scope=pool2"),
        ({"roles": ["stage3"], "chain": "none pool4 none mse", "align": "channels"}, "cannot divide maps of 2 x 2"),
        ({"roles": {"pooled": "stage2"}, "chain": "none none none mse"}, "features of one kind"),
    ],
)
def test_features_that_do_not_fit_are_refused(parts: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**parts).build(Shapes((5,), STUDENT), Shapes((5,), TEACHER), SPEC)


def test_tokens_are_positions():
    shapes = {"stage1": (7, 4)}
    term = make(None, "none none unit_positions mse")
    term.build(Shapes((5,), shapes), Shapes((5,), shapes), SPEC)
    student, teacher = drawn(shapes, 1), drawn(shapes, 2)
    batch = Batch.of_classes(torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64), torch.arange(6))
    sides = [f.feature("stage1") / f.feature("stage1").norm(dim=1, keepdim=True) for f in (student, teacher)]
    expected = (sides[0] - sides[1]).square().mean((1, 2))
    torch.testing.assert_close(term(student, teacher, batch, START), expected)
