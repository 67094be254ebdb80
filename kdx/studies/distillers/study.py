"""A study that searches for distillers and trains the best ones beside known methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from kdx.config.compose import compose
from kdx.config.identity import identity
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.files import below
from kdx.core.ranges import Count
from kdx.runs.prepare import prepare
from kdx.runs.results import Result
from kdx.studies.distillers.evaluate import Evaluate, Times, times_of
from kdx.studies.distillers.export import export
from kdx.studies.distillers.findings import Findings
from kdx.studies.distillers.history import History, Trial, load
from kdx.studies.distillers.page import write_page
from kdx.studies.distillers.search import Search, search
from kdx.studies.distillers.space import Space
from kdx.studies.distillers.summary import publish_findings
from kdx.studies.options import Options, select
from kdx.studies.study import run_missing

HELD_OUT = "held_out"  # evaluator of the winners' gaps on the test set


@dataclass(frozen=True, kw_only=True)
class Reported:
    """Numbers printed elsewhere, shown beside the table and compared with nothing.

    Attributes:
        source: Where they are printed.
        values: Percentages by pair of networks and method.
    """

    source: str
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Distillers:
    """Searches for distillers, trains each search's best at full length, and compares it with known methods.

    A candidate is an ordinary run, known by its identity, and short: a proxy. Candidates of a batch train together in
    fused groups. The search reads the validation split; the test set is read by full-length runs alone.

    Attributes:
        name: Directory of its files.
        title: Heading of the table.
        overrides: Overrides of all runs.
        proxy: Further overrides of candidates.
        vectors: Further overrides of candidates whose input is a vector, such as a memo of the teacher; None for none.
        final: Further overrides of full-length runs.
        seeds: Seeds of the searches. Each is also the seed of the search's candidates, in `seed_overrides`.
        seed_overrides: Overrides of all runs in which "{seed}" stands for the seed.
        space: The distillers.
        searches: The searches, by name.
        main: Name of the search whose history the page shows.
        rival: Name of the search that `main` is compared with.
        finalists: Searches whose best trains at full length, and once more as a proxy with the final seeds.
        baselines: Overrides of known methods at full length, by name.
        final_seeds: Seeds of full-length runs; none of them is a seed of a search.
        checked: Number of candidates of `main` and of `rival` that train at full length, evenly spread over the
            fitness, for its rank correlation with the final metric.
        metric: The final metric, on the test set.
        reported: Numbers printed elsewhere; None for none.

    Raises:
        UserError: A name is unknown, or a seed is used twice.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"rows"})

    name: str
    title: str
    overrides: Sequence[str]
    proxy: Sequence[str]
    vectors: Sequence[str] | None
    final: Sequence[str]
    seeds: Sequence[Count]
    seed_overrides: Sequence[str]
    space: Space
    searches: Mapping[str, Search]
    main: str
    rival: str
    finalists: Sequence[str]
    baselines: Mapping[str, Sequence[str]]
    final_seeds: Sequence[Count]
    checked: Count
    metric: str
    reported: Reported | None

    def __post_init__(self):
        named = [("main", self.main), ("rival", self.rival), *(("finalists", name) for name in self.finalists)]
        for key, name in named:
            if name not in self.searches:
                raise UserError(f"study.{key}: '{name}' is no search; searches: {', '.join(self.searches)}")
        if not self.seeds or not self.final_seeds:
            raise UserError("study.seeds and study.final_seeds need at least one seed each")
        if shared := sorted(set(self.seeds) & set(self.final_seeds)):
            raise UserError(f"study.final_seeds: {shared[0]} is the seed of a search, so its winner would be favoured")

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Search, train the winners and the baselines, and write the table, the page and the winners' configs.

        Args:
            paths: The config's paths.
            options: Options of the command line; rows are searches.

        Returns:
            A line for each failure of a full-length run.
        """
        folder = below(Path(paths["outputs"]) / "studies", self.name, "study.name")
        chosen = select(options.rows, list(self.searches), "rows")
        bases = {seed: self._proxy(paths, options, (), seed) for seed in self.seeds}
        histories: dict[str, dict[int, History]] = {}
        times: dict[str, list[Times]] = {}
        for name in chosen:
            for seed in self.seeds:
                base = bases[seed] if self.searches[name].screen is not None else _unrejected(bases[seed])
                path = folder / "history" / f"{name.replace(' ', '_')}-{seed}.jsonl"
                histories.setdefault(name, {})[seed] = self._search(name, seed, base, path, paths, options)
                times.setdefault(name, []).append(times_of(path))
        findings = Findings(study=self, runs=Path(paths["runs"]), histories=histories, times=times)
        lines = self._train_winners(findings, paths, options)
        for name, of in histories.items():
            for seed, history in of.items():
                export(folder, self.name, name, seed, self.space, history, findings)
        publish_findings(findings, paths)
        write_page(findings, folder)
        return lines

    def _search(
        self, name: str, seed: int, base: RunConfig, path: Path, paths: Mapping[str, str], options: Options
    ) -> History:
        if options.only is not None:
            return load(path, None)
        if options.fresh:
            path.unlink(missing_ok=True)
        vectors = None
        if self.vectors is not None:
            vectors = self._proxy(paths, options, self.vectors, seed)
            vectors = vectors if self.searches[name].screen is not None else _unrejected(vectors)
        evaluate = Evaluate(self.space, base, options, vectors)
        return search(self.searches[name], seed, self.space, evaluate, path, identity(base), f"{name}, seed {seed}")

    def _train_winners(self, findings: Findings, paths: Mapping[str, str], options: Options) -> list[str]:
        """Train what the findings need at full length, and the winners' proxies again with other seeds."""
        wanted: dict[str, dict[Any, RunConfig]] = {"final": {}, "again": {}, "checked": {}, "baseline": {}}
        finals = {seed: self._base(paths, options, self.final, seed) for seed in self.final_seeds}
        again = {seed: _measured_twice(_unrejected(self._proxy(paths, options, (), seed))) for seed in self.final_seeds}
        for name, of in findings.histories.items():
            for seed, history in of.items():
                if (best := history.best()) is None:
                    continue
                method = self.space.method(best.genotype)
                for other in self.final_seeds if name in self.finalists else ():
                    wanted["final"][name, seed, other] = replace(finals[other], method=method)
                    own = [*self.final, *self.space.overrides(best.genotype)]
                    findings.found[name, seed, other] = [*self.recipe(own, other), *options.overrides]
                    wanted["again"][name, seed, other] = replace(again[other], method=method)
                if name in (self.main, self.rival):
                    for trial in spread(history, self.checked):
                        config = replace(finals[self.final_seeds[0]], method=self.space.method(trial.genotype))
                        wanted["checked"][name, seed, trial.number] = config
        for name, own in self.baselines.items():
            for seed in self.final_seeds:
                wanted["baseline"][name, seed] = self._base(paths, options, [*self.final, *own], seed)
                findings.recipes[name, seed] = [*self.recipe([*self.final, *own], seed), *options.overrides]
        lines = []
        for kind, configs in wanted.items():
            labels = {", ".join([kind, *map(str, key)]): config for key, config in configs.items()}
            found, failures = run_missing(labels, options)
            lines += map(str, failures)
            results: dict[Any, Result] = getattr(findings, kind)
            results |= {key: found[label] for key, label in zip(configs, labels, strict=True) if label in found}
        return lines

    def _proxy(self, paths: Mapping[str, str], options: Options, own: Sequence[str], seed: int) -> RunConfig:
        """The config of a candidate, whose method is replaced."""
        return validated(self._base(paths, options, [*self.proxy, *own], seed))

    def _base(self, paths: Mapping[str, str], options: Options, own: Sequence[str], seed: int) -> RunConfig:
        return prepare(compose([*options.place(paths), *self.recipe(own, seed), *options.overrides]))

    def recipe(self, own: Sequence[str], seed: int) -> list[str]:
        """Overrides of a run: those of all runs, those of its seed, and its own."""
        by_seed = [override.replace("{seed}", str(seed)) for override in self.seed_overrides]
        return ["method=kdzero", *self.overrides, *by_seed, *own]


def validated(config: RunConfig) -> RunConfig:
    """The config with the evaluators of the validation split alone. Raises UserError if none measures the gaps."""
    kept = {name: node for name, node in config.evals.items() if node.get("split") == "val"}
    if "gaps" not in kept:
        raise UserError("study.proxy needs evals=search, which measures the gaps between student and teacher")
    return replace(config, evals=kept)


def spread(history: History, count: int) -> list[Trial]:
    """Trials with a fitness, evenly spread over its ranks from the best to the worst, at most `count`."""
    done = sorted((t for t in history.trials if t.fitness is not None), key=lambda t: (t.fitness, t.number))
    if count >= len(done):
        return done
    if count < 2:
        return done[:count]
    places = [round(i * (len(done) - 1) / (count - 1)) for i in range(count)]
    return [done[place] for place in places]


def _unrejected(config: RunConfig) -> RunConfig:
    """The config without the evaluator that ends hopeless runs."""
    return replace(config, evals={name: node for name, node in config.evals.items() if name != "rejection"})


def _measured_twice(config: RunConfig) -> RunConfig:
    """The config of a proxy with its gaps on the test set as well, which no search reads."""
    gaps = {**config.evals["gaps"], "split": "test"}
    return replace(config, evals={**config.evals, HELD_OUT: gaps})
