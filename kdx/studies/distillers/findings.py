"""The results of a search study, and the numbers that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdx.core.metric import Catalogue
from kdx.runs.results import Result, finished
from kdx.studies.distillers.evaluate import Times
from kdx.studies.distillers.history import History
from kdx.studies.distillers.rank import Pairs
from kdx.studies.distillers.search import MEASURED
from kdx.tables.metrics import Shown

if TYPE_CHECKING:
    from kdx.studies.distillers.study import Distillers

HELD_OUT_GAPS = {"representation": "gaps/test/representation", "sharpness": "gaps/test/sharpness"}
QUARTER = 0.25  # part of a proxy that a candidate rejected during it has trained at least


@dataclass
class Findings:
    """Histories and full-length runs of a study.

    Attributes:
        study: The study.
        runs: Directory of the runs.
        histories: By search and seed.
        times: Seconds of each search, by name, for each seed.
        final: Winners at full length, by search, search's seed and own seed.
        again: Winners' proxies with other seeds, likewise.
        checked: Candidates at full length, by search, search's seed and number of the trial.
        baseline: Known methods at full length, by name and seed.
        recipes: Overrides of `baseline`, for the manifest.
        found: Overrides of `final`, likewise.
    """

    study: Distillers
    runs: Path
    histories: Mapping[str, Mapping[int, History]]
    times: Mapping[str, list[Times]]
    final: dict[tuple[str, int, int], Result] = field(default_factory=dict)
    again: dict[tuple[str, int, int], Result] = field(default_factory=dict)
    checked: dict[tuple[str, int, int], Result] = field(default_factory=dict)
    baseline: dict[tuple[str, int], Result] = field(default_factory=dict)
    recipes: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    found: dict[tuple[str, int, int], list[str]] = field(default_factory=dict)

    @property
    def shown(self) -> Catalogue:
        """How metrics are shown."""
        return Shown([*self.final.values(), *self.baseline.values()])

    def baselines(self, name: str, metric: str) -> dict[int, float]:
        """A metric of a known method by seed."""
        of = {seed: result.metric(metric) for (method, seed), result in self.baseline.items() if method == name}
        return {seed: value for seed, value in of.items() if value is not None}

    def winners(self, name: str, metric: str) -> dict[int, float]:
        """A metric of a search's winners by the search's seed: means over the seeds of their full-length runs."""
        return self._means(self.final, name, lambda result: result.metric(metric))

    def refitted(self, name: str) -> dict[int, float]:
        """Fitness of a search's winners in proxies with seeds that the search did not use, by the search's seed."""
        return self._means(self.again, name, lambda result: self._fitness(name, result, MEASURED))

    def held_out(self, name: str) -> dict[int, float]:
        """The same on the test set; empty where the fitness has a part that is not measured there."""
        return self._means(self.again, name, lambda result: self._fitness(name, result, HELD_OUT_GAPS))

    def _fitness(self, name: str, result: Result, names: Mapping[str, str]) -> float | None:
        measured = {part: value for part, full in names.items() if (value := result.metric(full)) is not None}
        rule = self.study.searches[name].fitness
        return None if any(part not in measured for part in rule.used) else rule(measured)

    def _means(self, results, name, value) -> dict[int, float]:  # noqa: ANN001
        found: dict[int, list[float]] = {}
        for (search, seed, _), result in results.items():
            if search == name and (number := value(result)) is not None:
                found.setdefault(seed, []).append(number)
        return {seed: sum(values) / len(values) for seed, values in found.items()}

    def best(self, name: str) -> dict[int, float]:
        """Best fitness of a search by its seed."""
        of = {seed: history.best() for seed, history in self.histories[name].items()}
        return {seed: trial.fitness for seed, trial in of.items() if trial is not None and trial.fitness is not None}

    def states(self, name: str) -> Counter[str]:
        """Number of candidates of a search by state, over all seeds."""
        return Counter(trial.state for history in self.histories[name].values() for trial in history.trials)

    def saved(self, name: str) -> tuple[float, float] | None:
        """Seconds of the steps of a search, and those that its rejections saved; None where no run is finished.

        On a CPU they are CPU time, which other processes do not change. A candidate refused before training saves a
        whole proxy, one rejected during it at most the rest after the first quarter.
        """
        trials = [trial for history in self.histories[name].values() for trial in history.trials]
        found = [result for trial in trials if (result := self._result(trial.run)) is not None]
        seconds = [of.data["steps"] * of.data["milliseconds_per_step"] / 1000 for of in found]
        if not seconds:
            return None
        each, states = sum(seconds) / len(seconds), self.states(name)
        return sum(seconds) + states["rejected"] * QUARTER * each, each * (
            states["refused"] + (1 - QUARTER) * states["rejected"]
        )

    def own_seconds(self) -> float:
        """Seconds of steps and evaluations of all candidates with a result, by their own clocks, each run once."""
        runs = {trial.run for of in self.histories.values() for h in of.values() for trial in h.trials if trial.run}
        return sum(float(of.data["seconds"]) for run in runs if (of := self._result(run)) is not None)

    def _result(self, run: str) -> Result | None:
        return finished(self.runs / run) if run else None

    def pairs(self, name: str) -> list[Pairs]:
        """For each seed of a search, the negative fitness and the final metric of the candidates that were checked;
        the metric's sign is such that more is better."""
        sign = self.shown[self.study.metric].sign or 1
        groups = []
        for seed, history in self.histories[name].items():
            group = [
                (-trial.fitness, sign * value)
                for trial in history.trials
                if trial.fitness is not None
                and (result := self.checked.get((name, seed, trial.number))) is not None
                and (value := result.metric(self.study.metric)) is not None
            ]
            if group:
                groups.append(group)
        return groups
