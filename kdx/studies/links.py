"""Runs that may start from the directories of others."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdx.config.compose import ConfigError, compose
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError, did_you_mean
from kdx.runs.prepare import prepare
from kdx.runs.results import Result
from kdx.studies.options import Options
from kdx.studies.scales import latest
from kdx.studies.study import run_missing
from kdx.tables.manifest import Made

SEED = "seed"
# a word in braces; Hydra's mappings in braces have a colon
PLACE = re.compile(r"\{([^{}:,']+)\}")

Key = tuple[str, int]  # a run's label, and its seed


@dataclass(frozen=True, kw_only=True)
class Links:
    """Runs by label, each with each seed.

    In a run's overrides "{LABEL}" stands for the directory of the run of that label with the same seed, and "{seed}"
    for the seed: `teacher.checkpoint='{assistant}'`. A run's identity includes the content of the weights that it
    starts from, so an interrupted study continues where it stopped, and studies share the runs that they have in
    common.

    Attributes:
        key: Key of the study's config that holds the labels, for messages.
        overrides: Overrides of all runs.
        seeds: Seeds of each run.
        links: Overrides of each run, by label.

    Raises:
        UserError: A run starts from a label that does not exist, or runs need each other.
    """

    key: str
    overrides: Sequence[str]
    seeds: Sequence[int]
    links: Mapping[str, Sequence[str]]

    def __post_init__(self):
        for label in self.links:
            for other in self.needs(label):
                self.must_exist(other, f"{self.key}.{label}")
        self.order()

    def must_exist(self, label: str, key: str) -> None:
        """Raise UserError where there is no run of a label."""
        if label not in self.links:
            raise UserError(f"{key}: there is no link '{label}'{did_you_mean(label, self.links)}")

    def needs(self, label: str) -> list[str]:
        """Labels of the runs that a run starts from."""
        words = [word for override in self.links[label] for word in PLACE.findall(override)]
        return [word for word in dict.fromkeys(words) if word != SEED]

    def order(self) -> list[list[str]]:
        """The labels in rounds; a run needs only runs of earlier rounds.

        Raises:
            UserError: Runs need each other.
        """
        rounds: list[list[str]] = []
        left = list(self.links)
        while left:
            ready = [label for label in left if not set(self.needs(label)) & set(left)]
            if not ready:
                raise UserError(f"{self.key}: {', '.join(left)} need each other, so that none can be first")
            rounds.append(ready)
            left = [label for label in left if label not in ready]
        return rounds

    def with_needs(self, labels: Sequence[str]) -> list[str]:
        """Labels, and those of all runs that they start from."""
        wanted = set(labels)
        for links in reversed(self.order()):
            for label in links:
                wanted |= set(self.needs(label)) if label in wanted else set()
        return [label for label in self.links if label in wanted]

    def check(self, labels: Sequence[str], overrides: Sequence[str]) -> None:
        """Raise ConfigError where the overrides of a run make no valid config; directories of others are not needed."""
        for label in labels:
            try:
                prepare(compose(latest([*self._filled(label, self.seeds[0], None), *overrides])))
            except ConfigError as error:
                raise ConfigError([f"{label}: {line}" for line in error.problems]) from None

    def run(
        self, labels: Sequence[str], place: Sequence[str], options: Options
    ) -> tuple[dict[Key, tuple[RunConfig, Result]], list[Made], list[str]]:
        """Run what is missing, round by round; with `only=render` nothing runs.

        Args:
            labels: Runs to take, with those that they need.
            place: Overrides that come first.
            options: Options of the command line.

        Returns:
            Config and result of each run that has one; the same runs with their overrides, for the manifest; and a
            line for each failure.
        """
        found: dict[Key, tuple[RunConfig, Result]] = {}
        made: list[Made] = []
        lines: list[str] = []
        for links in self.order():
            configs: dict[str, RunConfig] = {}
            places: dict[str, Key] = {}
            recipes: dict[str, list[str]] = {}
            for label in [link for link in links if link in labels]:
                for seed in self.seeds:
                    missing = [need for need in self.needs(label) if (need, seed) not in found]
                    if missing:
                        if options.only is None:
                            lines.append(f"{label}, seed {seed}: its link {missing[0]} has no result")
                        continue
                    name = f"{label}, seed {seed}"
                    folders = {need: str(found[need, seed][1].folder.absolute()) for need in self.needs(label)}
                    recipes[name] = latest([*self._filled(label, seed, folders), *options.overrides])
                    configs[name] = prepare(compose([*place, *recipes[name]]))
                    places[name] = label, seed
            run = run_missing(configs, options)
            found |= {places[name]: (configs[name], result) for name, result in run[0].items()}
            made += [Made(name, places[name][0], recipes[name], result) for name, result in run[0].items()]
            lines += map(str, run[1])
        return found, made, lines

    def finished(self, labels: Sequence[str], place: Sequence[str], options: Options) -> tuple[int, int]:
        """Number of finished runs, and of all runs; the arguments as in `run`."""
        found, _, _ = self.run(labels, place, replace(options, only="render"))
        return len(found), len(labels) * len(self.seeds)

    def _filled(self, label: str, seed: int, folders: Mapping[str, str] | None) -> list[str]:
        """A run's overrides. Without folders, weights of other runs become ones that are trained or not given."""

        def fill(match: re.Match[str]) -> str:
            word = match[1]
            if word == SEED:
                return str(seed)
            return "auto" if folders is None else folders[word]

        overrides = [PLACE.sub(fill, o) for o in (*self.overrides, f"seed={seed}", *self.links[label])]
        given = "student.checkpoint=auto" not in overrides
        kept = [o for o in overrides if given or not o.startswith("student.checkpoint_share=")]
        return ["student.checkpoint=null" if o == "student.checkpoint=auto" else o for o in kept]
