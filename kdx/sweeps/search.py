"""Hyper-parameter search with Optuna, as a Hydra sweeper."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from kdx.config.identity import fingerprint
from kdx.core.errors import UserError
from kdx.core.notice import stop
from kdx.sweeps.trial import PRUNED, TRIAL, storage

CUT_OFF = "cut off"  # marks a trial of a killed search, which a new trial replaces


class Search(Sweeper):
    """Runs a number of trials; the same command resumes an interrupted search.

    `key=interval(a,b)` searches real numbers, `key=int(interval(a,b))` whole ones, `key=tag(log,interval(a,b))` on a
    logarithmic scale; any other sweep, such as `key=a,b`, chooses among its values. A trial's values depend on the
    earlier trials alone, so that a resumed search ends like an uninterrupted one.

    Args:
        metric: Objective of the search, at the last epoch, never on the test set; None is the primary metric of the
            data set's task on the validation split.
        direction: Whether the metric is maximised or minimised; None follows the task's primary metric.
        trials: Number of trials, pruned ones included.
        batch: Number of trials launched at a time, for launchers that run several.
        seed: Seed of the sampler.
        sampler: An Optuna sampler without its seed.
        pruner: An Optuna pruner; None prunes no trial.

    References:
        Akiba, Sano, Yanase, Ohta, Koyama, "Optuna: A Next-generation Hyperparameter Optimization Framework", 2019.
        https://arxiv.org/abs/1907.10902
    """

    def __init__(
        self,
        metric: str | None,
        direction: Literal["maximize", "minimize"] | None,
        trials: int,
        batch: int,
        seed: int,
        sampler: Any,
        pruner: Any,
    ):
        self.metric = metric
        self.direction: Literal["maximize", "minimize"] | None = direction
        self.trials, self.batch = trials, batch
        self.seed, self.sampler, self.pruner = seed, sampler, pruner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        try:
            self._search(arguments)
        except UserError as error:
            stop(2, [str(error)])

    def _search(self, arguments: Sequence[str]) -> None:
        import optuna

        assert self.launcher is not None and self.config is not None
        if "test" in (self.metric or "").split("/"):
            raise UserError(f"hydra.sweeper.metric={self.metric}: a search never reads the test set; use val/top1")
        metric, direction = self._objective()
        if min(self.trials, self.batch) < 1:
            raise UserError("hydra.sweeper.trials and hydra.sweeper.batch must be at least 1")
        fixed, space = read_space(arguments)
        if not space:
            raise UserError("a search needs a key to search: key=interval(a,b) or key=a,b")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = self._journal(arguments)
        journal.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=storage(journal), study_name="search", direction=direction, load_if_exists=True
        )
        _take_up(study)
        done = _done(study)
        while len(done) < self.trials:
            study.sampler = self.sampler(seed=self.seed + len(done))
            asked = [study.ask(space) for _ in range(min(self.batch, self.trials - len(done)))]
            jobs = [
                [
                    *fixed,
                    *(f"{key}={value}" for key, value in trial.params.items()),
                    f"hydra.sweeper.metric={metric}",
                    f"+hydra.job.env_set.{TRIAL}='{trial.number}:{journal}'",
                ]
                for trial in asked
            ]
            returns = self.launcher.launch(jobs, initial_job_idx=asked[0].number)
            for trial, job in zip(asked, returns, strict=True):
                value = job.return_value
                if value == PRUNED:
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                elif isinstance(value, float):
                    study.tell(trial, value)
                else:  # the run has reported its error
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
            done = _done(study)
        self._conclude(study, metric, journal)

    def _objective(self) -> tuple[str, Literal["maximize", "minimize"]]:
        """The metric of the trials and its direction: as given, else the primary metric of the data set's task."""
        assert self.config is not None
        if self.metric is not None and self.direction is not None:
            return self.metric, self.direction
        from kdx.runs.build import make  # imports torch, which `kdx train --help` does without

        dataset = OmegaConf.to_container(self.config.dataset, resolve=True)
        assert isinstance(dataset, dict)
        task = make({str(key): value for key, value in dataset.items()}).task
        primary = f"val/{task.primary.name}"
        if self.metric not in (None, primary):
            raise UserError(f"hydra.sweeper.metric={self.metric} needs hydra.sweeper.direction=maximize or minimize")
        return primary, self.direction or ("minimize" if task.primary.better == "lower" else "maximize")

    def _journal(self, arguments: Sequence[str]) -> Path:
        """The file of this search: the same for the same command, also with another number of trials."""
        assert self.config is not None
        how = OmegaConf.to_container(self.config.hydra.sweeper)
        assert isinstance(how, dict)
        kept = {key: value for key, value in how.items() if key not in ("trials", "batch")}
        name = fingerprint([sorted(arguments), kept])
        return Path(self.config.paths.outputs).resolve() / "searches" / f"{name}.journal"

    def _conclude(self, study: Any, metric: str, journal: Path) -> None:
        states = [trial.state.name for trial in _done(study)]
        counted = ", ".join(
            f"{states.count(state)} {word}"
            for state, word in (("COMPLETE", "finished"), ("PRUNED", "pruned"), ("FAIL", "failed"))
            if state in states
        )
        if "COMPLETE" not in states:
            print(f"no trial finished ({counted}); {journal}")
            return
        best = study.best_trial
        found = " ".join(f"{key}={value}" for key, value in best.params.items())
        print(f"best {metric}: {best.value:.4f} with {found} (trial {best.number}; {counted}; {journal})")


def read_space(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The fixed overrides, and an Optuna distribution for each searched key."""
    fixed, space = [], {}
    for text, override in zip(arguments, OverridesParser.create().parse_overrides(list(arguments)), strict=True):
        if override.is_sweep_override():
            space[override.get_key_element()] = _distribution(override)
        else:
            fixed.append(text)
    return fixed, space


def _distribution(override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not override.is_interval_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    interval: Any = override.value()
    kind = IntDistribution if isinstance(interval.start, int) else FloatDistribution
    return kind(interval.start, interval.end, log="log" in interval.tags)


def _take_up(study: Any) -> None:
    """Enqueue the unfinished trials of a killed search again, so that their runs resume."""
    from optuna import Trial
    from optuna.trial import TrialState

    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        Trial(study, left._trial_id).set_user_attr(CUT_OFF, True)
        study.tell(left.number, state=TrialState.FAIL)
        study.enqueue_trial(left.params)


def _done(study: Any) -> list[Any]:
    """Trials that have ended: finished, pruned or failed."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and CUT_OFF not in t.user_attrs]
