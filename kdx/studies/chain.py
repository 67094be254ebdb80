"""Runs that need each other's results: assistants, generations, and whatever else is taught by what was taught."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdx.config.compose import ConfigError, compose
from kdx.core.errors import UserError, did_you_mean
from kdx.pool.pool import look_up, run_all
from kdx.runs.prepare import prepare
from kdx.runs.results import Protocol, Result
from kdx.studies.grid import Grid
from kdx.studies.options import Options, select

SEED = "seed"
# a word in braces; what has a colon is one of Hydra's mappings
PLACE = re.compile(r"\{([^{}:,']+)\}")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Links, each an ordinary run that may start from the directories of others, with each seed; and one table.

    In a link's overrides "{NAME}" is the directory of the link of that name with the same seed, and "{seed}" the seed:
    `teacher.checkpoint='{assistant}'`, or `teacher.members={a: {checkpoint: '{teacher}'}, b: {checkpoint: '{third}'}}`.
    A link is known by its config and by the content of the weights that it starts from, so a chain that is cut off
    goes on where it was, and two chains share the links that they have in common.

    Attributes:
        name: What its files are called.
        title: Heading of the table.
        overrides: Overrides that all links share.
        seeds: Seeds of each link.
        links: Overrides of each link, by its label.
        rows: Links that the table shows; None for all.
        baseline: Row that gains are measured against; None for none.
        columns: As in `Grid`.
        protocol: Which epoch's numbers are shown.
    """

    name: str
    title: str
    overrides: Sequence[str]
    seeds: Sequence[int]
    links: Mapping[str, Sequence[str]]
    rows: Sequence[str] | None
    baseline: str | None
    columns: Sequence[str]
    protocol: Protocol
    _table: Grid = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        rows = list(self.links) if self.rows is None else self.rows
        for label in rows:
            self._must_exist(label, "study.rows")
        for label in self.links:
            for other in self._needs(label):
                self._must_exist(other, f"study.links.{label}")
        table = Grid(
            name=self.name,
            title=self.title,
            overrides=self.overrides,
            seeds=self.seeds,
            seed_overrides=[],
            rows={label: self.links[label] for label in rows},
            baseline=self.baseline,
            cost_row=None,
            teacher_row=False,
            columns=self.columns,
            protocol=self.protocol,
        )
        object.__setattr__(self, "_table", table)
        self.order()

    def _must_exist(self, label: str, key: str) -> None:
        if label not in self.links:
            raise UserError(f"{key}: there is no link '{label}'{did_you_mean(label, self.links)}")

    def _needs(self, label: str) -> list[str]:
        """Links that a link starts from."""
        words = [word for override in self.links[label] for word in PLACE.findall(override)]
        return [word for word in dict.fromkeys(words) if word != SEED]

    def order(self) -> list[list[str]]:
        """The links in rounds, each of which needs only the rounds before it.

        Raises:
            UserError: Links need each other.
        """
        rounds: list[list[str]] = []
        left = list(self.links)
        while left:
            ready = [label for label in left if not set(self._needs(label)) & set(left)]
            if not ready:
                raise UserError(f"study.links: {', '.join(left)} need each other, so that none can be first")
            rounds.append(ready)
            left = [label for label in left if label not in ready]
        return rounds

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run the links that are missing, round by round, and write and print the table.

        Args:
            paths: The config's paths.
            options: What the command asks; `rows` takes the links that the rows need along.

        Returns:
            A line for each failure.
        """
        if options.scale is not None or options.columns is not None:
            raise UserError("scale and columns are for tables; this study has one scale, and its columns are metrics")
        place = options.place(paths)
        shown = select(options.rows, list(self._table.rows), "rows")
        wanted = self._with_needs(shown)
        self.check(wanted, [*place, *options.overrides])
        found: dict[tuple[str, int], Result] = {}
        lines: list[str] = []
        for links in self.order():
            configs, places = {}, {}
            for label in [link for link in links if link in wanted]:
                for seed in self.seeds:
                    missing = [need for need in self._needs(label) if (need, seed) not in found]
                    if missing:
                        if options.only is None:
                            lines.append(f"{label}, seed {seed}: its link {missing[0]} has no result")
                        continue
                    filled = self._filled(label, seed, found)
                    configs[f"{label}, seed {seed}"] = prepare(compose([*place, *filled, *options.overrides]))
                    places[f"{label}, seed {seed}"] = label, seed
            run = look_up(configs) if options.only else run_all(configs, options.jobs, options.retry, options.together)
            found |= {places[name]: result for name, result in run[0].items()}
            lines += map(str, run[1])
        results = {
            label: [found[label, seed] for seed in self.seeds]
            for label in shown
            if all((label, seed) in found for seed in self.seeds)
        }
        if not results:
            return lines or ["no row is complete"]
        self._table.present(results, paths, options)
        return lines

    def check(self, labels: Sequence[str], overrides: Sequence[str]) -> None:
        """Raise ConfigError where a link is no config; what it needs of others is left to be trained."""
        for label in labels:
            try:
                prepare(compose([*self._filled(label, self.seeds[0], None), *overrides]))
            except ConfigError as error:
                raise ConfigError([f"{label}: {line}" for line in error.problems]) from None

    def _with_needs(self, labels: Sequence[str]) -> list[str]:
        wanted = set(labels)
        for links in reversed(self.order()):
            for label in links:
                wanted |= set(self._needs(label)) if label in wanted else set()
        return [label for label in self.links if label in wanted]

    def _filled(self, label: str, seed: int, found: Mapping[tuple[str, int], Result] | None) -> list[str]:
        """A link's overrides; where nothing is found yet, with what can be said of its links without them."""

        def fill(match: re.Match[str]) -> str:
            word = match[1]
            if word == SEED:
                return str(seed)
            return "auto" if found is None else str(found[word, seed].folder.absolute())

        overrides = [PLACE.sub(fill, o) for o in (*self.overrides, f"seed={seed}", *self.links[label])]
        return ["student.checkpoint=null" if o == "student.checkpoint=auto" else o for o in overrides]
