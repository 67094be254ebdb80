"""Every number of every term may be a schedule, and every term is under law."""

import copy
import importlib
import pkgutil
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import laws_composed
import laws_features
import laws_logits
import laws_texts
import loss_references as reference
import pytest
import torch
from law_case import CLASSES, START, STUDENT, TEACHER, Case, build

import kdx.losses
from kdx.core.batch import Batch
from kdx.core.schedule import Between, Schedule
from kdx.losses.base.term import Term

CASES = {**laws_logits.TERMS, **laws_features.TERMS, **laws_composed.TERMS}
LAWFUL = {**CASES, **laws_texts.TERMS}  # texts have other outputs than the pair below
# numbers that say when, or that build the term before there is any progress
FIXED = {"since", "until", "paraphrase_epochs", "initial_variance", "factor_fraction"}
# under law the memory rests, which is what it moves, or is empty (test_pskd schedules it); and noise has no size
NO_EFFECT = {("CRD", "momentum"), ("NoisyLogits", "fraction"), ("PastPredictions", "share")}
# read rows, features that only their methods make, or a memory of earlier steps: their own files have their laws
ELSEWHERE = {"InputGradient", "JacobianDistance", "OverRows", "PastPredictions"}
# read anchors and regions of detectors or pixels: tests/methods/test_detect.py, tests/losses/test_openvocab.py
ELSEWHERE |= {"AnchorBoxes", "AnchorClasses", "EmbeddingL1", "EmbeddingRelations", "FGD", "Objectness", "ProposalBoxes"}
ELSEWHERE |= {"Pearson", "PseudoBoxes", "RegionBoxImitation", "RegionBoxes", "RegionClasses", "SeenClasses"}
# constants of a focal loss and of attention, or of a distiller that is data
CONSTANTS = {"AnchorClasses", "Composed", "FGD"}


def terms() -> list[type[Term]]:
    """All classes of terms that compute something."""
    for module in pkgutil.walk_packages(kdx.losses.__path__, "kdx.losses."):
        importlib.import_module(module.name)
    found, heads = set(), [Term]
    while heads:
        heads += (children := heads.pop().__subclasses__())
        found.update(c for c in children if c.__module__.startswith("kdx.losses"))
    return sorted((c for c in found if c.forward is not Term.forward), key=lambda c: c.__name__)


def parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in typing.get_args(annotation):
        yield from parts(argument)


def numbers(term: type[Term]) -> list[str]:
    """Parameters of the constructor that are no counts: their type has a float in it."""
    hints = typing.get_type_hints(term.__init__)
    return [name for name, hint in hints.items() if float in parts(hint) and name not in FIXED]


NUMBERS = [(term, name) for term in terms() if term.__name__ not in CONSTANTS for name in numbers(term)]


@pytest.mark.parametrize(("term", "name"), NUMBERS, ids=[f"{t.__name__}.{n}" for t, n in NUMBERS])
def test_a_number_is_typed_as_a_schedule_too(term: type[Term], name: str):
    assert Schedule in parts(typing.get_type_hints(term.__init__)[name]), (
        f"{term.__name__}.{name}: add `| Schedule` to its type and read it with kdx.core.schedule.at"
    )


def replaced(value: Any, new: float | Schedule) -> Any:
    """One number, or the first of several, changed."""
    if isinstance(value, Mapping):
        return {**value, next(iter(value)): new}
    return (new, *value[1:]) if isinstance(value, tuple) else new


def first(value: Any) -> Any:
    if isinstance(value, Mapping):
        return next(iter(value.values()))
    return value[0] if isinstance(value, tuple) else value


def second_rows(case: Case, which: type[Term], name: str, change: Any) -> torch.Tensor:
    """The second value of the case's term, after a number of one of its parts was changed."""
    torch.manual_seed(0)
    term = build(case, STUDENT, TEACHER)
    for part in [t for t in term.modules() if isinstance(t, which)]:
        setattr(part, name, replaced(getattr(part, name), change(first(getattr(part, name)))))
    labels = torch.arange(6) % CLASSES
    values = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(0)).double()
    batch = Batch.of_classes(torch.zeros(6, 1), labels, torch.arange(6)).with_targets(values=values)
    student, teacher = (reference.random_outputs(6, CLASSES, shapes) for shapes in (STUDENT, TEACHER))
    for _ in range(2):  # what is remembered from step to step shows the second time
        rows = term(student, teacher, batch, START)
    return rows.detach()


@pytest.mark.parametrize(("term", "name"), NUMBERS, ids=[f"{t.__name__}.{n}" for t, n in NUMBERS])
def test_a_schedule_takes_effect(term: type[Term], name: str):
    def other(value: float) -> float:
        return 0.75 * value if value else 0.25

    effects = []
    for case in CASES.values():
        held = [t for t in case.make().modules() if isinstance(t, term)]
        if not held or not isinstance(first(getattr(held[0], name)), float | int):
            continue
        as_number = second_rows(case, term, name, other)
        as_schedule = second_rows(case, term, name, lambda v: Between(value=other(v), since=0, until=1))
        assert torch.equal(as_schedule, as_number)
        effects.append(not torch.equal(as_number, second_rows(case, term, name, copy.copy)))
    assert any(effects) or (term.__name__, name) in NO_EFFECT


def test_every_term_is_under_law():
    lawful = {c for case in LAWFUL.values() for t in case.make().modules() for c in type(t).__mro__}
    missing = {t.__name__ for t in set(terms()) - lawful} - ELSEWHERE
    assert not missing, (
        f"{missing}: add a line to TERMS in tests/losses/laws_logits.py or laws_features.py, with a loop in float64 in "
        "tests/losses/logit_references.py or feature_references.py"
    )
