"""A run as a trial of a search: its objective, its reports, and when it is pruned."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

from kdx.core.errors import StoppedError

TRIAL = "KDX_TRIAL"  # environment variable of a job: the number of its trial, and the journal of the search
PRUNED = "pruned"  # return value of a pruned job


def storage(journal: Path) -> Any:
    """Optuna's storage in a file, which processes on one file system share."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(journal)))


class TrialView:
    """A view of a run's record that reports values to Optuna, and ends the run if its trial is pruned."""

    def __init__(self, number: int, journal: Path, metric: str, pruner: Any, past: Sequence[Mapping[str, Any]]):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.load_study(study_name="search", storage=storage(journal), pruner=pruner)
        self._trial = optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
        self.metric, self.prunes = metric, pruner is not None
        for line in past:
            self._report(line)

    def log(self, line: Mapping[str, float | None]) -> None:
        if self._report(line) and self.prunes and self._trial.should_prune():
            raise StoppedError(f"pruned at step {line['step']:.0f}: other trials were better there")

    def close(self, summary: Mapping[str, object] | None) -> None:
        pass

    def _report(self, line: Mapping[str, float | None]) -> bool:
        value = line.get(self.metric)
        if value is None:
            return False
        self._trial.report(value, int(line["step"] or 0))
        return True


def trial_views(past: Sequence[Mapping[str, Any]]) -> list[TrialView]:
    """The view of the present job; none if it is not a trial of a search.

    Args:
        past: Lines that its run has recorded before.
    """
    if TRIAL not in os.environ:
        return []
    number, journal = os.environ[TRIAL].split(":", 1)
    sweeper = HydraConfig.get().sweeper
    return [TrialView(int(number), Path(journal), sweeper.metric, instantiate(sweeper.pruner), past)]


def objective() -> str | None:
    """The objective of the present job; None if it is not a trial of a search."""
    return str(HydraConfig.get().sweeper.metric) if TRIAL in os.environ else None
