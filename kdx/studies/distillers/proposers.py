"""Proposers of a search: each gives the next genotype from the trials so far.

A proposer has no state: with the same trials and random stream it proposes the same, so that a search that was stopped
continues as if it had not been.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from kdx.core.ranges import PositiveInt, Probability
from kdx.studies.distillers.history import Trial
from kdx.studies.distillers.space import Genotype, Space

TRIES = 200


@dataclass(frozen=True)
class Proposal:
    """A genotype, how it was made, and the numbers of its parents."""

    genotype: Genotype
    origin: str
    parents: tuple[int, ...] = ()


class Proposer(Protocol):
    """Gives the next genotype."""

    def propose(self, space: Space, trials: Sequence[Trial], rng: Random) -> Proposal:
        """Propose a genotype of the space; a trial without a fitness is a bad one."""
        ...


@dataclass(frozen=True)
class RandomSearch:
    """Draws each genotype at random."""

    def propose(self, space: Space, trials: Sequence[Trial], rng: Random) -> Proposal:
        return Proposal(space.draw(rng), "random")


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """Evolution with crossover, mutation and newcomers.

    The population is the best trials so far, so the worst leaves when a better one arrives. The first proposals are
    random. Afterwards a proposal is a newcomer, drawn at random, or the child of parents from the better half of the
    population.

    Attributes:
        population: Number of trials that survive.
        crossover: Probability that a child has two parents.
        mutation: Probability that a child is mutated; one that equals its parent always is.
        newcomers: Probability that a proposal is a newcomer.

    References:
        Li, Dong, Li, Wei, Yang, "KD-Zero: Evolving Knowledge Distiller for Any Teacher-Student Pairs", 2023.
        https://openreview.net/forum?id=OlMKa5YZ8e (operators and their defaults from Auto-DAS, by the same authors)
    """

    population: PositiveInt
    crossover: Probability
    mutation: Probability
    newcomers: Probability

    def propose(self, space: Space, trials: Sequence[Trial], rng: Random) -> Proposal:
        alive = survivors(trials, self.population)
        if len(alive) < self.population:
            return Proposal(space.draw(rng), "random")
        if rng.random() < self.newcomers:
            return Proposal(space.draw(rng), "newcomer")
        parents = alive[: max(1, self.population // 2)]
        first, second = rng.choice(parents), rng.choice(parents)
        child, family = first.genotype, (first.number,)
        if rng.random() < self.crossover and second.number != first.number:
            child, family = space.cross(first.genotype, second.genotype, rng), (first.number, second.number)
        # a parent may have an option that has left the space
        if rng.random() < self.mutation or child in (first.genotype, second.genotype) or not space.valid(child):
            child = space.mutate(child, rng)
        return Proposal(child, "child", family)


def survivors(trials: Sequence[Trial], population: int) -> list[Trial]:
    """The trials with the lowest fitness, best first."""
    done = [trial for trial in trials if trial.fitness is not None]
    return sorted(done, key=lambda t: (t.fitness, t.number))[:population]


def propose_new(
    proposer: Proposer, space: Space, trials: Sequence[Trial], known: Collection[Genotype], rng: Random
) -> Proposal | None:
    """A genotype that was not tried before; None if none was proposed in 200 tries, as in a space that is used up."""
    for _ in range(TRIES):
        proposal = proposer.propose(space, trials, rng)
        if proposal.genotype not in known:
            return proposal
    return None
