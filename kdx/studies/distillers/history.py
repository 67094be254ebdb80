"""The record of a search: a line for each candidate and each narrowing of the space, without times.

The same search writes the same bytes, however often it was stopped; times are in the runs' own results.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kdx.core.files import atomic_write
from kdx.studies.distillers.space import Genotype

State = Literal["done", "refused", "rejected", "failed"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate of a search.

    Attributes:
        number: Its place in the search, from 0.
        origin: How it was proposed: "random", "newcomer" or "child".
        parents: Numbers of its parents.
        genotype: The distiller.
        state: "done"; "refused" before training, "rejected" during it, "failed" for any other error.
        reason: Why it has no fitness; empty if it has one.
        measured: Measurements on the validation split, by name.
        fitness: The number that the search minimises; None without one.
        run: Name of the run's directory; empty for a candidate that was not trained.
    """

    number: int
    origin: str
    parents: tuple[int, ...]
    genotype: Genotype
    state: State
    reason: str
    measured: Mapping[str, float]
    fitness: float | None
    run: str

    @property
    def trained(self) -> bool:
        """Whether a training was started for it, which the budget counts."""
        return self.state != "refused"


@dataclass(frozen=True, kw_only=True)
class Drop:
    """An option that left the space, and the evidence.

    Attributes:
        after: Number of trials before.
        slot: Slot of the option.
        option: The option.
        trials: Number of trained trials with the option.
        mean_rank: Mean of their ranks among all, from 0 for the best to 1 for the worst.
        p: One-sided p-value that ranks this bad come by chance (rank-sum test).
    """

    after: int
    slot: str
    option: Any
    trials: int
    mean_rank: float
    p: float


@dataclass(frozen=True)
class History:
    """Trials and drops, in their order."""

    trials: tuple[Trial, ...] = ()
    drops: tuple[Drop, ...] = ()

    def best(self) -> Trial | None:
        """The trial with the lowest fitness, the first of several; None if no trial has one."""
        done = [trial for trial in self.trials if trial.fitness is not None]
        return min(done, key=lambda t: (t.fitness, t.number)) if done else None

    @property
    def spent(self) -> int:
        """Number of trials that were trained."""
        return sum(trial.trained for trial in self.trials)

    def best_so_far(self) -> list[float]:
        """The lowest fitness after each training; infinity before the first one with a fitness."""
        found, lowest = [], float("inf")
        for trial in self.trials:
            if trial.trained:
                lowest = lowest if trial.fitness is None else min(lowest, trial.fitness)
                found.append(lowest)
        return found


def save(path: Path, key: str, history: History) -> None:
    """Write a history atomically.

    Args:
        path: The file.
        key: Fingerprint of the search's settings.
        history: The history.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = [{"search": key}]
    lines += [{"trial": asdict(trial)} for trial in history.trials]
    lines += [{"drop": asdict(drop)} for drop in history.drops]
    with atomic_write(path) as file:
        file.write("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode())


def load(path: Path, key: str | None) -> History:
    """Read a history; an empty one if there is no file, or other settings wrote it.

    Args:
        path: The file.
        key: Fingerprint of the settings; None reads the history of any.
    """
    if not path.exists():
        return History()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if not lines or (key is not None and lines[0] != {"search": key}):
        return History()
    trials = tuple(_trial(line["trial"]) for line in lines if "trial" in line)
    return History(trials, tuple(Drop(**line["drop"]) for line in lines if "drop" in line))


def _trial(data: Mapping[str, Any]) -> Trial:
    return Trial(**{**data, "parents": tuple(data["parents"]), "genotype": Genotype(**data["genotype"])})
