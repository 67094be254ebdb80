"""Refuses and trains the candidates of a search, and measures the time this takes."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from kdx.config.schema import RunConfig
from kdx.pool.pool import run_all
from kdx.runs.export import folder_of
from kdx.runs.folder import failure
from kdx.runs.results import Result
from kdx.studies.distillers.screen import Limits, Screen
from kdx.studies.distillers.space import Genotype, Space
from kdx.studies.options import Options

KIND = re.compile(r"^\w*(Error|Exception): ")  # of an error, before its message


class Evaluator(Protocol):
    """Refuses and trains candidates."""

    def refuses(self, genotype: Genotype, limits: Limits, /) -> str | None: ...

    def train(self, genotypes: Sequence[Genotype], /) -> list[tuple[str, Result | str]]: ...


@dataclass
class Evaluate:
    """Trains candidates as ordinary runs.

    Attributes:
        space: The space.
        base: Prepared config; each candidate replaces its method.
        options: Options of the command line.
        vectors: Config for candidates whose input is a vector, such as one with a memo of the teacher.
    """

    space: Space
    base: RunConfig
    options: Options
    vectors: RunConfig | None
    _screen: Screen | None = field(init=False, default=None)

    def config(self, genotype: Genotype) -> RunConfig:
        """The config of a candidate."""
        base = self.vectors if self.vectors is not None and genotype.input in self.space.vectors else self.base
        return replace(base, method=self.space.method(genotype))

    def refuses(self, genotype: Genotype, limits: Limits) -> str | None:
        """Why a candidate is refused before training; None if it is not."""
        self._screen = self._screen or Screen(self.base, limits)
        return self._screen.refuses(self.space.term(genotype), genotype.weight)

    def train(self, genotypes: Sequence[Genotype]) -> list[tuple[str, Result | str]]:
        """Run directory of each candidate, and its result or the reason of its failure."""
        configs = {str(genotype): self.config(genotype) for genotype in genotypes}
        found, failures = run_all(configs, self.options.jobs, self.options.retry, self.options.fused_limit)
        # as its directory says, which is the same when the run is looked up again; another process that tries the run
        # may have removed the file
        errors = {one.label: failure(one.folder) or KIND.sub("", one.error) for one in failures}
        return [(folder_of(c).name, found[label] if label in found else errors[label]) for label, c in configs.items()]


@dataclass(frozen=True)
class Times:
    """Seconds of a search, over all its processes; a batch that was cut off is not counted.

    Attributes:
        screening: Proposals and checks before training, networks and data for them included.
        training: Runs, from their preparation to their export.
        rest: Record and messages.
    """

    screening: float = 0.0
    training: float = 0.0
    rest: float = 0.0

    @property
    def whole(self) -> float:
        return self.screening + self.training + self.rest


def times_of(history: Path) -> Times:
    """The times of the search with this history."""
    path = _file(history)
    if not path.exists():
        return Times()
    # a kill may have cut the last line
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return Times(*(sum(column) for column in zip(*rows, strict=True))) if rows else Times()


def note_times(history: Path, marks: Sequence[float]) -> None:
    """Add a batch: times at its start, after its checks, after its runs, and at its end."""
    with open(_file(history), "a") as file:
        file.write(json.dumps([round(b - a, 4) for a, b in pairwise(marks)]) + "\n")


def forget_times(history: Path) -> None:
    """Remove the times of a search that starts over."""
    _file(history).unlink(missing_ok=True)


def _file(history: Path) -> Path:
    """Beside the history, which holds no times."""
    return history.with_suffix(".times")
