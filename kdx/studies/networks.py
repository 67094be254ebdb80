"""A study that compares trained networks by a measurement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from kdx.config.compose import compose
from kdx.config.schema import Node, RunConfig
from kdx.core.errors import UserError
from kdx.core.files import below
from kdx.core.metric import Catalogue
from kdx.core.ranges import Count
from kdx.runs.prepare import prepare
from kdx.studies.links import Links
from kdx.studies.measures.base import Drawn, Measurement
from kdx.studies.options import Options
from kdx.studies.scales import Preset, chosen, latest, presets
from kdx.studies.trained import Evaluation
from kdx.tables.claims.read import check_places, read
from kdx.tables.footnotes import footnotes
from kdx.tables.publish import Source, publish
from kdx.tables.statistics import ENOUGH, caution
from kdx.tables.table import Table

Scores = Mapping[str, Mapping[str, float]]  # a number by row and column

# keys of a data set that choose training examples and leave the test set alone
TRAINING = ("fraction", "fraction_seed", "fraction_order", "val_fraction", "val_seed", "train_subset")
PLACES = ("root", "index", "download", "verify")


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Compares the students of finished runs, for each seed, and writes one table of means over the seeds.

    The study defines no training of its own: it asks for each run by its overrides, as a table does, so finished runs
    are taken as they are. "{NAME}" in the overrides of a network stands for the directory of the network of that name
    with the same seed, see `Links`.

    Attributes:
        name: Directory of its files.
        title: Heading of the table.
        overrides: Overrides of all runs.
        seeds: Seeds of each network.
        networks: Overrides of each run, by the name that the measurement sees.
        split: Examples that networks are compared on.
        measure: The measurement. One that draws writes `picture.png`, of the first complete seed.
        examples: Overrides, after those of all runs, of the data set that networks are compared on: one with the inputs
            and classes of theirs, such as a domain that some have not seen. None for the networks' own, which must be
            the same.
        starts: Networks that also take part with the weights that their training started from, as "NAME at start".
        claims: Claims about the table, see `kdx.tables.claims`.
        scales: As in `Grid`; of a preset's overrides, those of the data set count for `examples` too.

    Raises:
        UserError: Fewer than one seed or two networks, or see `Links`.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"scale"})

    name: str
    title: str
    overrides: Sequence[str]
    seeds: Sequence[Count]
    networks: Mapping[str, Sequence[str]]
    split: Literal["test", "train", "val"]
    measure: Measurement
    examples: Sequence[str] | None = None
    starts: Sequence[str] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Preset] = field(default_factory=dict)
    _links: Links = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "scales", presets(self.scales))
        if not self.seeds or len(self.networks) < 2:
            raise UserError("study.networks: a comparison needs at least one seed and two networks")
        links = Links(key="study.networks", overrides=self.overrides, seeds=self.seeds, links=self.networks)
        for name in self.starts:
            links.must_exist(name, "study.starts")
        object.__setattr__(self, "_links", links)
        object.__setattr__(self, "claims", read(self.claims))

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run what is missing, measure, and write and print the table of the seeds that are complete.

        See `Study.execute`.
        """
        if options.scale is not None:
            return self._at(options.scale).execute(paths, replace(options, scale=None))
        place = options.place(paths)
        self.check([*place, *options.overrides])
        found, made, lines = self._links.run(list(self.networks), place, options)
        complete = [seed for seed in self.seeds if all((name, seed) in found for name in self.networks)]
        if not complete:
            return lines or ["no seed is complete"]
        scores: dict[int, Scores] = {}
        for seed in complete:
            configs = {name: found[name, seed][0] for name in self.networks}
            data = Evaluation(self._data(configs, place, options))
            nets: dict[str, nn.Module] = {}
            for name, config in configs.items():
                nets[name] = data.student(config, found[name, seed][1].student)
                if name in self.starts:
                    nets[f"{name} at start"] = data.start(config)
            examples = data.batches(self.split)
            scores[seed] = self.measure(nets, examples)
            if seed == complete[0] and isinstance(self.measure, Drawn):
                folder = below(Path(paths["outputs"]) / "studies", self.name, "study.name")
                folder.mkdir(parents=True, exist_ok=True)
                self.measure.draw(nets, examples, folder / "picture.png")
                print(f"{folder}/picture.png")
        runs = [result.data for (_, seed), (_, result) in found.items() if seed in complete]
        lacking = {s: [n for n in self.networks if (n, s) not in found] for s in self.seeds if s not in complete}
        missing = [f"missing: seed {seed}: no result of {', '.join(names)}" for seed, names in lacking.items()]
        table = self._table(scores, missing, footnotes(runs))
        check_places(self.claims, table.values, table.columns)
        publish(table, paths, self.name, Source(type(self).__name__, "last", made), claims=self.claims)
        return lines

    def finished(self, paths: Mapping[str, str], options: Options) -> tuple[int, int]:
        """Number of finished runs, and of all runs."""
        if options.scale is not None:
            return self._at(options.scale).finished(paths, replace(options, scale=None))
        return self._links.finished(list(self.networks), options.place(paths), options)

    def _at(self, name: str) -> "Networks":
        """The study at a scale."""
        scale = chosen(self.scales, name)
        data = [o for o in scale.overrides if o.lstrip("+~").startswith("dataset")]
        return replace(
            self,
            name=f"{self.name}/{name}",
            seeds=scale.seeds,
            networks=scale.applied(self.networks),
            examples=None if self.examples is None else [*self.examples, *data],
            scales={},
            claims={},
        )

    def check(self, overrides: Sequence[str]) -> None:
        """Raise ConfigError where the overrides of a network make no valid config."""
        self._links.check(list(self.networks), overrides)

    def _data(self, configs: Mapping[str, RunConfig], place: Sequence[str], options: Options) -> RunConfig:
        """A config with the examples that the networks are compared on."""
        if self.examples is None:
            self._must_share_data(configs)
            return next(iter(configs.values()))
        own = latest([*self.overrides, "method=supervised", *self.examples, *options.overrides])
        return prepare(compose([*place, *own]))

    def _must_share_data(self, configs: Mapping[str, RunConfig]) -> None:
        def facts(config: RunConfig) -> Node:
            ignored = (*PLACES, *(TRAINING if self.split == "test" else ()))
            return {key: value for key, value in config.dataset.items() if key not in ignored}

        first = next(iter(configs))
        for name, config in configs.items():
            ours, theirs = facts(config), facts(configs[first])
            if differing := [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]:
                raise UserError(
                    f"study.networks: '{name}' and '{first}' have different {self.split} examples "
                    f"(dataset.{differing[0]}), so they cannot be compared"
                )

    def _table(self, scores: Mapping[int, Scores], missing: Sequence[str], notes: Sequence[str]) -> Table:
        first = next(iter(scores.values()))
        rows, columns = list(first), list(dict.fromkeys(column for of in first.values() for column in of))
        values: dict[str, dict[str, dict[int, float]]] = {}
        for row in rows:
            every = {c: {seed: of[row][c] for seed, of in scores.items() if c in of[row]} for c in columns}
            # a cell counts only where each seed has a number
            values[row] = {column: found for column, found in every.items() if len(found) == len(scores)}
        notes = [
            *self.measure.notes,
            f"rows: mean ± sample standard deviation (sd) over n seeds {list(scores)} of both networks; {self.split} "
            "examples",
            *([] if self.examples is None else [f"examples: {' '.join(self.examples)}"]),
            *missing,
            *notes,
        ]
        if caution(len(scores)):
            notes.append(f"fewer than {ENOUGH} seeds: the spread says little")
        return Table.of(self.title, columns, values, len(self.seeds), notes, Catalogue(self.measure.metrics))
