"""One search over distillers: propose, refuse, train, record."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from kdx.config.identity import fingerprint
from kdx.core.notice import say
from kdx.core.ranges import NonNegative, PositiveInt
from kdx.runs.results import Result
from kdx.studies.distillers.evaluate import Evaluator, forget_times, note_times
from kdx.studies.distillers.history import History, Trial, load, save
from kdx.studies.distillers.proposers import Proposal, Proposer, propose_new
from kdx.studies.distillers.screen import Limits
from kdx.studies.distillers.shrink import Shrinkage, narrowed
from kdx.studies.distillers.space import Genotype, Space

MEASURED = {
    "representation": "gaps/val/representation",
    "sharpness": "gaps/val/sharpness",
    "nll": "val/nll",
    "top1": "val/top1",
}
VERSION = 1  # of the search; a change of its proposals for the same settings raises it
REJECTED = "rejected: "
DIVERGED = ("the term '", "the student's '")  # how messages of NonFiniteError begin


@dataclass(frozen=True, kw_only=True)
class Fitness:
    """Weights of the sum that the search minimises, all measured on the validation split.

    Attributes:
        representation: Of 1 minus the linear CKA of a feature of student and teacher.
        sharpness: Of the relative gap of their mean log-sum-exp.
        nll: Of the student's negative log-likelihood.
    """

    representation: NonNegative
    sharpness: NonNegative
    nll: NonNegative

    @property
    def used(self) -> Mapping[str, float]:
        """The weights that are not 0."""
        return {name: weight for name, weight in asdict(self).items() if weight}

    def __call__(self, measured: Mapping[str, float]) -> float:
        return sum(weight * measured[name] for name, weight in self.used.items())


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search with a budget of trainings.

    Attributes:
        proposer: Gives the next genotype.
        trainings: Number of trainings; candidates refused before training are not counted.
        batch: Candidates that are proposed together, and trained together where they fit into one fused group.
        screen: Limits of the check before training; None trains every candidate to the end, and rejects none.
        shrink: How the space is narrowed; None leaves it as it is.
        fitness: The number that is minimised.
    """

    proposer: Proposer
    trainings: PositiveInt
    batch: PositiveInt
    screen: Limits | None
    shrink: Shrinkage | None
    fitness: Fitness


def search(settings: Search, seed: int, space: Space, evaluate: Evaluator, path: Path, key: str, name: str) -> History:
    """Run a search, or continue it from its history.

    Args:
        settings: Its settings.
        seed: Seed of its proposals.
        space: The space.
        evaluate: Trains and refuses candidates, see `Evaluate`.
        path: File of its history.
        key: Identity of a candidate's config, without its method.
        name: Name for messages.
    """
    mark = fingerprint([VERSION, seed, repr(settings), repr(space), key])
    history = load(path, mark)
    if not history.trials:
        forget_times(path)
    while history.spent < settings.trainings:
        marks = [time.perf_counter()]
        wanted = min(settings.batch, settings.trainings - history.spent)
        refused, batch = ask(settings, seed, narrowed(space, history.drops), evaluate.refuses, history, wanted)
        marks.append(time.perf_counter())
        outcomes = evaluate.train([proposal.genotype for _, proposal in batch])
        marks.append(time.perf_counter())
        told = [tell(settings.fitness, *pair) for pair in zip(batch, outcomes, strict=True)]
        trials = tuple(sorted([*history.trials, *refused, *told], key=lambda t: t.number))
        history = shrunk(settings, space, replace(history, trials=trials), history.spent)
        save(path, mark, history)
        note_times(path, [*marks, time.perf_counter()])
        best = history.best()
        say(
            f"{name}: {history.spent} of {settings.trainings} trainings, "
            f"best {'none' if best is None else f'{best.fitness:.4f}: {best.genotype}'}"
        )
        if not batch:
            say(f"{name}: the space has no further candidate")
            break
    return history


Refuses = Callable[[Genotype, Limits], str | None]


def ask(
    settings: Search, seed: int, space: Space, refuses: Refuses, history: History, wanted: int
) -> tuple[list[Trial], list[tuple[int, Proposal]]]:
    """The refused candidates on the way, and the next ones to train with their numbers."""
    trials, refused, batch = list(history.trials), list[Trial](), list[tuple[int, Proposal]]()
    known = {trial.genotype for trial in trials}
    number = len(trials)
    while len(batch) < wanted:
        # a stream for each number, so that a search that was stopped draws the same
        proposal = propose_new(settings.proposer, space, trials, known, Random(f"{seed}/{number}"))
        if proposal is None:
            break
        known.add(proposal.genotype)
        reason = None if settings.screen is None else refuses(proposal.genotype, settings.screen)
        if reason is None:
            batch.append((number, proposal))
        else:
            refused.append(_trial(number, proposal, "refused", reason, {}, None, ""))
        number += 1
    return refused, batch


def tell(fitness: Fitness, asked: tuple[int, Proposal], outcome: tuple[str, Result | str]) -> Trial:
    """The trial of a candidate whose training has ended."""
    (number, proposal), (run, result) = asked, outcome
    if isinstance(result, str):
        ended = result.startswith(REJECTED) or result.startswith(DIVERGED)
        reason = result.removeprefix(REJECTED)
        return _trial(number, proposal, "rejected" if ended else "failed", reason, {}, None, run)
    measured = {name: value for name, full in MEASURED.items() if (value := result.metric(full)) is not None}
    return _trial(number, proposal, "done", "", measured, fitness(measured), run)


def shrunk(settings: Search, space: Space, history: History, before: int) -> History:
    """The history with the drops that are due.

    Args:
        settings: The search.
        space: Its space before any drop.
        history: With the last trainings.
        before: Trainings before these.
    """
    rule, spent = settings.shrink, history.spent
    if rule is None or spent >= settings.trainings or spent // rule.every == before // rule.every:
        return history
    _, drops = rule.round(narrowed(space, history.drops), history.trials)
    return replace(history, drops=(*history.drops, *drops))


def _trial(
    number: int, proposal: Proposal, state: Any, reason: str, measured: Mapping[str, float], fitness: Any, run: str
) -> Trial:
    return Trial(
        number=number,
        origin=proposal.origin,
        parents=proposal.parents,
        genotype=proposal.genotype,
        state=state,
        reason=reason.splitlines()[0] if reason else "",
        measured=measured,
        fitness=fitness,
        run=run,
    )
