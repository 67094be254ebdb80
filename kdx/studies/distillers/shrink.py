"""Narrows a space to the options that do well, with the evidence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdx.core.ranges import OpenFraction, PositiveInt
from kdx.studies.distillers.history import Drop, Trial
from kdx.studies.distillers.space import SLOTS, Space

KEPT = "none"  # the option that leaves a slot out is never dropped


@dataclass(frozen=True, kw_only=True)
class Shrinkage:
    """Drops the options of the worst candidates.

    An option is dropped if its mean rank is among the worst, it was tried often enough, and a rank-sum test says that
    its candidates are worse than the others.

    Attributes:
        every: Trainings between two rounds.
        worst: Share of all options that are considered, the worst by mean rank.
        trials: Least number of trainings of an option.
        keep: Least number of options that stay in each slot.
        p: Largest p-value, one-sided.
    """

    every: PositiveInt
    worst: OpenFraction
    trials: PositiveInt
    keep: PositiveInt
    p: OpenFraction

    def round(self, space: Space, trials: Sequence[Trial]) -> tuple[Space, list[Drop]]:
        """The narrower space, and what it lost.

        Args:
            space: The present space.
            trials: All trials so far.
        """
        ranks = ranked(trials)
        rows = []
        for slot in SLOTS:
            for option in space.options(slot):
                own = [ranks[t.number] for t in trials if t.trained and getattr(t.genotype, slot) == option]
                if own:
                    rows.append((sum(own) / len(own), slot, option, own))
        rows.sort(key=lambda row: -row[0])
        drops: list[Drop] = []
        for mean, slot, option, own in rows[: math.ceil(self.worst * len(rows))]:
            left = [o for o in space.options(slot) if o != option]
            if option == KEPT or len(own) < self.trials or len(left) < self.keep:
                continue
            p = worse(own, len(ranks))
            narrower = without(space, slot, option)
            if p > self.p or narrower is None:
                continue
            space = narrower
            drops.append(
                Drop(after=len(trials), slot=slot, option=option, trials=len(own), mean_rank=round(mean, 6), p=p)
            )
        return space, drops


def ranked(trials: Sequence[Trial]) -> dict[int, float]:
    """Rank of each trained trial, by number: 0 for the lowest fitness, 1 for the highest; those without one share the
    mean of the last places."""
    trained = [t for t in trials if t.trained]
    keys = {t.number: math.inf if t.fitness is None else t.fitness for t in trained}
    order = sorted(keys.values())
    last = max(1, len(order) - 1)
    return {
        number: (order.index(key) + len(order) - 1 - order[::-1].index(key)) / 2 / last for number, key in keys.items()
    }


def worse(own: Sequence[float], count: int) -> float:
    """One-sided p-value that ranks in [0, 1] are this high by chance: the normal approximation of the rank-sum test.

    Args:
        own: Ranks of some trials.
        count: Number of all trials.

    References:
        Mann, Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other", 1947.
    """
    n, others = len(own), count - len(own)
    if not others:
        return 1.0
    places = [rank * (count - 1) + 1 for rank in own]
    mean, spread = n * (count + 1) / 2, math.sqrt(n * others * (count + 1) / 12)
    return round(0.5 * math.erfc((sum(places) - mean) / spread / math.sqrt(2)), 6)


def without(space: Space, slot: str, option: Any) -> Space | None:
    """The space without an option; None if an input is left without a valid combination."""
    if slot == "input":
        inputs = {name: roles for name, roles in space.inputs.items() if name != option}
        narrower = replace(space, inputs=inputs, vectors=[name for name in space.vectors if name in inputs])
    else:
        narrower = replace(space, **{slot: [o for o in space.options(slot) if o != option]})
    return narrower if narrower.complete else None


def narrowed(space: Space, drops: Sequence[Drop]) -> Space:
    """The space after some drops."""
    for drop in drops:
        space = without(space, drop.slot, drop.option) or space
    return space
