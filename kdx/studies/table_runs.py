"""The configs of a table, cell by cell and seed by seed."""

import sys
from collections.abc import Mapping, Sequence

from kdx.config.compose import Config, ConfigError
from kdx.pool.pool import look_up, run_all
from kdx.pool.task import Failure, folder_of
from kdx.runs.dry_run import rehearse
from kdx.runs.results import Result
from kdx.studies.config_cache import Recall
from kdx.studies.options import Options

Place = tuple[str, str]  # row, column


class Board:
    """What a table runs.

    Attributes:
        configs: Label and config by place and seed.
        holes: Why a place has no config.
        problems: Lines for places whose overrides are wrong.
    """

    def __init__(self, recall: Recall):
        self.recall = recall
        self.configs: dict[tuple[Place, int], tuple[str, Config]] = {}
        self.holes: dict[Place, str] = {}
        self.problems: list[str] = []

    def add(self, place: Place, recipe: list[str] | str, where: Sequence[str], seeds: Sequence[int]) -> None:
        """Compose a place's configs, or note why it has none."""
        if isinstance(recipe, str):
            if recipe:
                self.holes[place] = recipe
            return
        overrides = [*where, *recipe, f"seed={seeds[0]}"]
        try:
            config, follows = self.recall.config(overrides)
        except ConfigError as error:
            self.holes[place] = "does not fit"
            self.problems += [f"{', '.join(place)}: {line}" for line in error.problems]
            return
        for seed in seeds:
            label = f"{', '.join(place)}, seed {seed}"
            self.configs[place, seed] = label, with_seed(config, seed, follows)

    def run(self, wanted: Mapping[str, Config], options: Options) -> tuple[dict[str, Result], list[Failure]]:
        """Run configs once their parts have been tried together; those that do not fit are failures."""
        fitting: dict[str, Config] = {}
        wrong: list[Failure] = []
        there = {} if options.fresh else look_up(wanted)[0]
        for label, config in wanted.items():
            try:
                if label not in there:
                    rehearse(config)
                fitting[label] = config
            except ConfigError as error:
                wrong.append(Failure(label, folder_of(config), "; ".join(error.problems)))
                print(f"kdx: failed: {wrong[-1]}", file=sys.stderr)
        results, failures = run_all(fitting, options.jobs, options.retry, options.together)
        return results, [*wrong, *failures]


def with_seed(config: Config, seed: int, data_follows: bool) -> Config:
    """The config of another seed, without composing it anew.

    Args:
        config: Of any seed.
        seed: The other one.
        data_follows: Whether the seed of the data is that of the run.
    """
    return {**config, "seed": seed, "data_seed": seed if data_follows else config["data_seed"]}
