"""The runs of a table: a config for each cell and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kdx.config.compose import ConfigError
from kdx.config.schema import RunConfig
from kdx.core.notice import say
from kdx.pool.pool import look_up, run_all
from kdx.pool.task import Failure
from kdx.runs.checks.dry_run import rehearse
from kdx.runs.export import folder_of
from kdx.runs.results import Result
from kdx.studies.config_cache import ConfigCache
from kdx.studies.options import Options

Place = tuple[str, str]  # row and column


class TableRuns:
    """The runs of a table.

    Attributes:
        configs: Label and config by cell and seed.
        holes: Why a cell has no config.
        problems: A line for each mistake in the overrides of a cell.
    """

    def __init__(self, cache: ConfigCache):
        self.cache = cache
        self.configs: dict[tuple[Place, int], tuple[str, RunConfig]] = {}
        self.holes: dict[Place, str] = {}
        self.problems: list[str] = []

    def add(self, place: Place, recipe: list[str] | str, where: Sequence[str], seeds: Sequence[int]) -> None:
        """Compose the configs of a cell, or note why it has none."""
        if isinstance(recipe, str):
            if recipe:
                self.holes[place] = recipe
            return
        overrides = [*where, *recipe, f"seed={seeds[0]}"]
        try:
            config, follows = self.cache.config(overrides)
        except ConfigError as error:
            self.holes[place] = "does not fit"
            self.problems += [f"{', '.join(place)}: {line}" for line in error.problems]
            return
        for seed in seeds:
            label = f"{', '.join(place)}, seed {seed}"
            self.configs[place, seed] = label, with_seed(config, seed, follows)

    def run(self, wanted: Mapping[str, RunConfig], options: Options) -> tuple[dict[str, Result], list[Failure]]:
        """Run configs after a dry run of each; configs whose parts do not fit are failures."""
        fitting: dict[str, RunConfig] = {}
        wrong: list[Failure] = []
        there = {} if options.fresh else look_up(wanted)[0]
        for label, config in wanted.items():
            try:
                if label not in there:
                    rehearse(config)
                fitting[label] = config
            except ConfigError as error:
                wrong.append(Failure(label, folder_of(config), "; ".join(error.problems)))
                say(f"failed: {wrong[-1]}")
        results, failures = run_all(fitting, options.jobs, options.retry, options.together)
        return results, [*wrong, *failures]


def with_seed(config: RunConfig, seed: int, data_follows: bool) -> RunConfig:
    """The same config with another seed, without composing it again.

    Args:
        config: Config with any seed.
        seed: The new seed.
        data_follows: Whether data_seed equals seed.
    """
    return replace(config, seed=seed, data_seed=seed if data_follows else config.data_seed)
