"""A proposer that asks a sampler of Optuna."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from kdx.core.errors import UserError, did_you_mean
from kdx.studies.distillers.history import Trial
from kdx.studies.distillers.proposers import Proposal
from kdx.studies.distillers.space import SLOTS, TRIES, Genotype, Space


@dataclass(frozen=True)
class Sampled:
    """Proposes a sampler's next genotype, such as that of a tree-structured Parzen estimator.

    The sampler sees each slot as a choice. A combination that cannot be written is told to it as failed, as is a trial
    without a fitness, and it is asked again. The trials are told anew for each proposal, so that the sampler keeps no
    state.

    Args:
        sampler: Name of a class of `optuna.samplers`.
        options: Its arguments but the seed.

    Raises:
        UserError: In `propose`, if Optuna is not installed or has no such sampler.

    References:
        Akiba, Sano, Yanase, Ohta, Koyama, "Optuna: A Next-generation Hyperparameter Optimization Framework", 2019.
        https://arxiv.org/abs/1907.10902
        Bergstra, Bardenet, Bengio, Kegl, "Algorithms for Hyper-Parameter Optimization", 2011.
        https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization
    """

    sampler: str
    options: Mapping[str, Any]

    def propose(self, space: Space, trials: Sequence[Trial], rng: Random) -> Proposal:
        try:
            import optuna
        except ImportError:
            raise UserError(
                f"{self.sampler} comes with Optuna: pip install 'kdx[sweeps]', or leave the search out with rows=[...]"
            ) from None
        from optuna.distributions import BaseDistribution, CategoricalDistribution
        from optuna.trial import TrialState, create_trial

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        choices: dict[str, BaseDistribution] = {slot: CategoricalDistribution(space.options(slot)) for slot in SLOTS}
        kind = getattr(optuna.samplers, self.sampler, None)
        if kind is None:
            known = [name for name in vars(optuna.samplers) if name.endswith("Sampler")]
            raise UserError(f"Optuna has no sampler '{self.sampler}'{did_you_mean(self.sampler, known)}")
        study = optuna.create_study(sampler=kind(seed=rng.randrange(2**31), **self.options))
        for trial in trials:
            if not space.valid(trial.genotype):
                continue  # it has an option that has left the space
            values = {slot: getattr(trial.genotype, slot) for slot in SLOTS}
            values["temperature"] = values["temperature"] or space.temperature[0]
            state = TrialState.FAIL if trial.fitness is None else TrialState.COMPLETE
            study.add_trial(create_trial(params=values, distributions=choices, value=trial.fitness, state=state))
        for _ in range(TRIES):
            asked = study.ask(choices)
            genotype = space.settled(Genotype(**asked.params), rng)
            if space.valid(genotype):
                return Proposal(genotype, "sampled")
            study.tell(asked, state=TrialState.FAIL)
        return Proposal(space.draw(rng), "random")
