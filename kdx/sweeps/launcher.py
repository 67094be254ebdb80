"""Hydra's launcher of fused sweeps. Nothing heavy is imported before it launches."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, filter_overrides, setup_globals

from kdx.config.compose import ConfigError, plain
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError


class ReportedError(UserError):
    """A run failed, and its error is already printed."""


class FusedLauncher(BasicLauncher):
    """Trains the runs of a sweep together, then starts each job, which finds its result on disk.

    So a sweeper sees the jobs one after another and in order, as with Hydra's basic launcher.

    Args:
        limit: Maximum number of runs that train together.
        jobs: Number of concurrent processes.
    """

    # folders of this process's runs, and the errors of failed ones
    launched: set[Path] = set()
    failed: dict[Path, str] = {}
    refused: set[str] = set()  # overrides of jobs whose errors are already printed

    def __init__(self, limit: int, jobs: int):
        super().__init__()
        self.limit, self.jobs = limit, jobs

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        self._train(job_overrides)
        return super().launch(job_overrides, initial_job_idx)

    def _train(self, job_overrides: Sequence[Sequence[str]]) -> None:
        from kdx.core.notice import say
        from kdx.pool.pool import run_all  # imports torch
        from kdx.runs.export import folder_of

        everywhere = set.intersection(*map(set, job_overrides))
        configs = {}
        for overrides in job_overrides:
            own = [override for override in filter_overrides(overrides) if override not in everywhere]
            label = " ".join(own or filter_overrides(overrides))
            try:
                configs[label] = self._config(overrides)
            except ConfigError as error:  # reported now, hours before the job's turn
                FusedLauncher.refused.add(" ".join(filter_overrides(overrides)))
                for line in error.problems:
                    say(f"{label}: {line}")
        if wrong := len(job_overrides) - len(configs):
            say(f"{wrong} of {len(job_overrides)} runs cannot be; {len(configs)} are trained")
        _, failures = run_all(configs, self.jobs, "failed", self.limit)
        FusedLauncher.launched |= {folder_of(config) for config in configs.values()}
        FusedLauncher.failed |= {failure.folder: failure.error for failure in failures}

    def _config(self, overrides: Sequence[str]) -> RunConfig:
        """The prepared config of a job. Raises ConfigError."""
        from kdx.runs.prepare import prepare

        assert self.hydra_context is not None and self.config is not None
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)
        try:
            return prepare(plain(cfg))
        finally:
            HydraConfig.instance().cfg = before


def as_launched(config: RunConfig) -> RunConfig:
    """The config of a job, with `fresh=false` if this launcher has already trained its run.

    Raises:
        ReportedError: The run failed; it is not tried a second time.
    """
    if not FusedLauncher.launched:
        return config
    from kdx.runs.export import folder_of

    folder = folder_of(config)
    if (error := FusedLauncher.failed.get(folder)) is not None:
        raise ReportedError(error)
    return replace(config, fresh=False) if folder in FusedLauncher.launched else config
