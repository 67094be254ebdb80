"""Searches over distillers with made-up evaluations: proposals, record, resumption, rejection, shrinkage."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import pytest

from kdx.core.errors import UserError
from kdx.runs.results import Result
from kdx.studies.distillers.history import Drop, History, Trial, load
from kdx.studies.distillers.proposers import Evolution, RandomSearch, propose_new, survivors
from kdx.studies.distillers.rank import interval, kendall
from kdx.studies.distillers.sampled import Sampled
from kdx.studies.distillers.screen import Limits
from kdx.studies.distillers.search import Fitness, Search, search
from kdx.studies.distillers.shrink import Shrinkage, ranked, without, worse
from kdx.studies.distillers.space import SLOTS, Genotype, Space

SPACE = Space(
    inputs={"logits": "logits", "pooled": ["pooled"], "last": ["last"], "stages": None},
    vectors=["logits", "pooled"],
    attention=["none", "spatial", "channel", "energy"],
    scope=["none", "pool2", "channels", "examples"],
    normalise=["none", "flatten", "unit_channels", "unit_positions", "softmax_channels", "softmax_positions"],
    distance=["l1", "mse", "cosine", "kl"],
    temperature=[1.0, 4.0],
    weight=[1.0, 5.0, 25.0],
)
EVOLVE = Evolution(population=8, crossover=0.5, mutation=0.5, newcomers=0.1)
LIMITS = Limits(batches=1, least=1e-4, most=1e4)
SHRINK = Shrinkage(every=12, worst=0.3, trials=4, keep=2, p=0.1)
FITNESS = Fitness(representation=1.0, sharpness=1.0, nll=0.0)
PLAIN = Search(proposer=EVOLVE, trainings=36, batch=4, screen=LIMITS, shrink=SHRINK, fitness=FITNESS)


def cost(genotype: Genotype) -> float:
    """A sum over slots, the same for the same genotype: each option has a cost by its place."""
    places = [SPACE.options(slot).index(value) for slot in SLOTS if (value := getattr(genotype, slot)) is not None]
    return float(sum(places))


class Made:
    """Evaluations without networks."""

    def __init__(self, ends_after: int | None = None, crashes: Callable[[Genotype], str | None] = lambda _: None):
        self.trained: list[Genotype] = []
        self.ends_after, self.crashes, self.batches = ends_after, crashes, 0

    def refuses(self, genotype: Genotype, limits: Limits) -> str | None:
        return "its gradient is 0" if genotype.weight == 25.0 and genotype.distance == "l1" else None

    def train(self, genotypes: Sequence[Genotype]) -> list[tuple[str, Result | str]]:
        if self.batches == self.ends_after:
            raise KeyboardInterrupt
        self.batches += 1
        self.trained += genotypes
        return [(f"run of {genotype}", self.crashes(genotype) or self.result(genotype)) for genotype in genotypes]

    def result(self, genotype: Genotype) -> Result:
        last = {"gaps/val/representation": cost(genotype), "gaps/val/sharpness": 0.5, "val/nll": 9.0, "val/top1": 0.5}
        return Result(Path("nowhere"), {"metrics": {"last": last}})


def run(path: Path, made: Made, settings: Search = PLAIN, seed: int = 0) -> History:
    return search(settings, seed, SPACE, made, path, "identity", "test")


def test_a_search_trains_its_budget_of_valid_distillers_each_once(tmp_path):
    made = Made()
    history = run(tmp_path / "h.jsonl", made)
    assert history.spent == len(made.trained) == PLAIN.trainings
    assert [trial.number for trial in history.trials] == list(range(len(history.trials)))
    genotypes = [trial.genotype for trial in history.trials]
    assert len(set(genotypes)) == len(genotypes)
    assert all(SPACE.valid(genotype) for genotype in genotypes)
    refused = [trial for trial in history.trials if trial.state == "refused"]
    assert refused and all(trial.reason == "its gradient is 0" and not trial.run for trial in refused)
    assert {trial.genotype for trial in refused}.isdisjoint(made.trained)
    by_number = {trial.number: trial for trial in history.trials}
    for trial in history.trials:
        assert all(parent < trial.number and by_number[parent].state == "done" for parent in trial.parents)
        assert bool(trial.parents) == (trial.origin == "child")
    assert {"random", "newcomer", "child"} == {trial.origin for trial in history.trials}


def test_the_best_so_far_never_rises_and_ends_at_the_best(tmp_path):
    history = run(tmp_path / "h.jsonl", Made())
    curve = history.best_so_far()
    best = history.best()
    assert best is not None and len(curve) == PLAIN.trainings
    assert all(later <= earlier for earlier, later in itertools.pairwise(curve))
    assert curve[-1] == best.fitness == min(cost(t.genotype) for t in history.trials if t.state == "done") + 0.5


@pytest.mark.parametrize("batches", range(9))
def test_a_search_that_was_stopped_writes_the_same_bytes(tmp_path, batches: int):
    run(tmp_path / "whole.jsonl", Made())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts.jsonl", Made(ends_after=batches))
    if batches:
        assert load(tmp_path / "parts.jsonl", None).spent == batches * PLAIN.batch
    second = Made()
    run(tmp_path / "parts.jsonl", second)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(second.trained) == PLAIN.trainings - batches * PLAIN.batch


def test_another_setting_starts_anew(tmp_path):
    run(tmp_path / "h.jsonl", Made())
    for settings, seed in ((PLAIN, 1), (replace(PLAIN, fitness=replace(FITNESS, nll=1.0)), 0)):
        made = Made()
        run(tmp_path / "h.jsonl", made, settings, seed)
        assert len(made.trained) == PLAIN.trainings
    made = Made()
    run(tmp_path / "h.jsonl", made, replace(PLAIN, fitness=replace(FITNESS, nll=1.0)), 0)
    assert not made.trained


@pytest.mark.parametrize("at", [0, 3, 8])
def test_two_searches_on_one_file_end_with_the_same_history(tmp_path, at: int):
    """One does all its work while the other trains a batch."""
    run(tmp_path / "alone.jsonl", Made())
    path = tmp_path / "shared.jsonl"

    class Beside(Made):
        def train(self, genotypes: Sequence[Genotype]) -> list[tuple[str, Result | str]]:
            if self.batches == at:
                run(path, Made())
                assert path.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
            return super().train(genotypes)

    run(path, Beside())
    assert path.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_a_candidate_without_a_result_is_recorded_and_the_search_goes_on(tmp_path):
    reasons = {
        "cosine": "rejected: at chance, the val accuracy is 0.1 of 10 classes",
        "mse": "the term 'found' is nan at step 3; a lower learning rate may help",
        "kl": "out of memory",
    }
    made = Made(crashes=lambda g: reasons.get(g.distance))
    history = run(tmp_path / "h.jsonl", made)
    assert history.spent == PLAIN.trainings
    states = {"cosine": "rejected", "mse": "rejected", "kl": "failed", "l1": "done"}
    for trial in history.trials:
        if trial.trained:
            assert trial.state == states[trial.genotype.distance]
            assert (trial.fitness is None) == (trial.state != "done")
    told = {trial.reason for trial in history.trials if trial.genotype.distance == "cosine" and trial.trained}
    assert told == {"at chance, the val accuracy is 0.1 of 10 classes"}
    best = history.best()
    assert best is not None and best.genotype.distance == "l1"


def test_without_a_screen_nothing_is_refused(tmp_path):
    history = run(tmp_path / "h.jsonl", Made(), replace(PLAIN, screen=None))
    assert len(history.trials) == PLAIN.trainings


def lowest(proposer: Evolution | RandomSearch, seed: int) -> float:
    """Lowest cost of 48 distillers, proposed four at a time."""
    trials: list[Trial] = []
    known: set[Genotype] = set()
    for number in range(48):
        told = trials[: number // 4 * 4]
        proposal = propose_new(proposer, SPACE, told, known, Random(f"{seed}/{number}"))
        assert proposal is not None
        known.add(proposal.genotype)
        parts: dict[str, Any] = {"parents": (), "state": "done", "reason": "", "measured": {}, "run": ""}
        fitness = cost(proposal.genotype)
        trials.append(Trial(number=number, origin="random", genotype=proposal.genotype, fitness=fitness, **parts))
    return min(trial.fitness for trial in trials if trial.fitness is not None)


def test_evolution_is_better_than_random_search_at_equal_budget():
    """On a sum over slots; the mean difference over 40 seeds is beyond three of its standard errors."""
    gaps = [lowest(EVOLVE, seed) - lowest(RandomSearch(), seed) for seed in range(40)]
    spread = math.sqrt(sum((g - mean(gaps)) ** 2 for g in gaps) / 39 / 40)
    assert mean(gaps) < -3 * spread


def test_a_sampler_of_optuna_proposes_the_same_from_the_same_trials(tmp_path):
    pytest.importorskip("optuna")
    settings = replace(PLAIN, proposer=Sampled("TPESampler", {"n_startup_trials": 4}), trainings=12)
    history = run(tmp_path / "whole.jsonl", Made(), settings)
    assert {trial.origin for trial in history.trials} == {"sampled"}
    assert all(SPACE.valid(trial.genotype) for trial in history.trials)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts.jsonl", Made(ends_after=2), settings)
    run(tmp_path / "parts.jsonl", Made(), settings)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    with pytest.raises(UserError, match="Optuna has no sampler 'TPSampler'; did you mean 'TPESampler'"):
        Sampled("TPSampler", {}).propose(SPACE, (), Random(0))


def test_only_the_best_survive_and_children_come_from_their_better_half(tmp_path):
    history = run(tmp_path / "h.jsonl", Made(), replace(PLAIN, shrink=None))
    for trial in history.trials:
        if trial.origin != "child":
            continue
        # proposals of a batch know the trials of earlier batches alone
        earlier = [t for t in history.trials if t.number < trial.number]
        done = sum(t.trained for t in earlier) // PLAIN.batch * PLAIN.batch
        known = list(itertools.takewhile(lambda t: True, earlier))
        while sum(t.trained for t in known) > done:
            known.pop()
        parents = {t.number for t in survivors(known, EVOLVE.population)[: EVOLVE.population // 2]}
        assert set(trial.parents) <= parents


def test_draws_crossover_and_mutation_stay_in_the_space():
    rng = Random(0)
    for _ in range(300):
        one, other = SPACE.draw(rng), SPACE.draw(rng)
        child, mutant = SPACE.cross(one, other, rng), SPACE.mutate(one, rng)
        assert all(map(SPACE.valid, (one, other, child, mutant)))
        assert mutant != one
        for slot in SLOTS:
            if slot != "temperature":
                assert getattr(child, slot) in (getattr(one, slot), getattr(other, slot))
        changed = {slot for slot in ("attention", "scope", "normalise") if getattr(mutant, slot) != getattr(one, slot)}
        assert len(changed) <= 1


def test_each_input_is_drawn_as_often():
    """Also those of vectors, which have fewer valid combinations."""
    rng = Random(4)
    counts = Counter(SPACE.draw(rng).input for _ in range(800))
    assert set(counts) == set(SPACE.inputs)
    assert all(abs(count - 200) < 4 * math.sqrt(800 * 0.25 * 0.75) for count in counts.values())


def test_a_genotype_has_a_temperature_exactly_where_it_has_a_softmax():
    rng = Random(1)
    for _ in range(200):
        drawn = SPACE.draw(rng)
        assert (drawn.temperature is not None) == drawn.normalise.startswith("softmax")
        assert SPACE.valid(drawn) and not SPACE.valid(replace(drawn, temperature=3.0))


def test_the_space_is_as_large_as_its_valid_combinations():
    small = replace(SPACE, scope=["none"], attention=["none"], normalise=["none", "softmax_channels"])
    # none: 3 distances; softmax: 4 distances at 2 temperatures; 4 inputs and 3 weights each
    assert small.size() == 4 * (3 + 4 * 2) * 3


def test_no_option_is_dropped_that_an_input_cannot_do_without():
    only = replace(SPACE, normalise=["none", "unit_positions", "softmax_channels"], distance=["kl", "mse"])
    # logits have no positions, and kl needs a softmax
    left = replace(only, normalise=["unit_positions", "softmax_channels"])
    assert without(left, "normalise", "softmax_channels") is None
    kept = without(left, "normalise", "unit_positions")
    assert kept is not None and list(kept.normalise) == ["softmax_channels"]
    assert without(replace(only, inputs={"last": ["last"]}, vectors=[]), "distance", "mse") is not None


def planted(bad: str) -> list[Trial]:
    """Trials of random genotypes, in which one distance is worse than all others."""
    rng, trials = Random(2), []
    for number in range(40):
        genotype = SPACE.draw(rng)
        fitness = rng.random() + 10 * (genotype.distance == bad)
        parts: dict[str, Any] = {"origin": "random", "parents": (), "state": "done", "reason": "", "run": ""}
        trials.append(Trial(number=number, genotype=genotype, measured={}, fitness=fitness, **parts))
    return trials


def test_shrinkage_drops_the_option_that_is_worse_and_says_why():
    space, drops = SHRINK.round(SPACE, planted("cosine"))
    assert "cosine" not in space.distance
    drop = next(drop for drop in drops if drop.option == "cosine")
    own = [t for t in planted("cosine") if t.genotype.distance == "cosine"]
    assert (drop.slot, drop.after, drop.trials) == ("distance", 40, len(own))
    assert drop.mean_rank > 0.8 and drop.p < 0.001
    for slot in SLOTS:
        assert len(space.options(slot)) >= SHRINK.keep
        assert "none" in space.options(slot) or "none" not in SPACE.options(slot)


def test_shrinkage_keeps_options_without_evidence():
    trials = planted("cosine")
    assert SHRINK.round(SPACE, trials[:3])[1] == []
    few = replace(SHRINK, trials=100)
    assert few.round(SPACE, trials)[1] == []
    equal = [replace(trial, fitness=1.0) for trial in trials]
    assert SHRINK.round(SPACE, equal)[1] == []


def test_an_option_that_was_dropped_is_not_proposed_again(tmp_path):
    # every candidate with a cosine crashes, so that it is the worst
    history = run(tmp_path / "h.jsonl", Made(crashes=lambda g: "failed" if g.distance == "cosine" else None))
    drops = [drop for drop in history.drops if drop.option == "cosine"]
    assert len(drops) == 1
    later = [t for t in history.trials if t.number >= drops[0].after]
    assert later and all(t.genotype.distance != "cosine" for t in later)
    assert load(tmp_path / "h.jsonl", None) == history
    assert isinstance(history.drops[0], Drop)


def test_ranks_share_the_places_of_ties():
    trials = planted("cosine")[:4]
    fitness = [2.0, 1.0, 2.0, None]
    ranks = ranked([replace(t, fitness=f) for t, f in zip(trials, fitness, strict=True)])
    assert ranks == {0: 0.5, 1: 0.0, 2: 0.5, 3: 1.0}


def test_the_rank_sum_p_value_is_near_that_of_all_selections():
    ranks = [i / 11 for i in range(12)]
    own = (3, 7, 10, 11)
    total = sum(own)
    every = list(itertools.combinations(range(12), 4))
    exact = sum(sum(one) >= total for one in every) / len(every)
    assert worse([ranks[i] for i in own], 12) == pytest.approx(exact, abs=0.02)
    assert worse(ranks, 12) == 1.0


def test_kendall_counts_pairs():
    rng = Random(3)
    pairs = [(rng.randint(0, 5), rng.randint(0, 5)) for _ in range(30)]
    signs = [((a > c) - (a < c), (b > d) - (b < d)) for (a, b), (c, d) in itertools.combinations(pairs, 2)]
    loose = sum(x * y for x, y in signs)
    scale = math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    assert kendall(pairs) == pytest.approx(loose / scale)
    assert math.isnan(kendall([(1, 2), (1, 3)]))
    low, high = interval([pairs, pairs], 0)
    assert low < kendall(pairs) < high
    assert interval([[(i, i) for i in range(20)]], 0) == (1.0, 1.0)


def test_a_fitness_needs_the_parts_that_have_a_weight():
    measured = {"representation": 0.25, "sharpness": 0.5, "nll": 2.0}
    assert Fitness(representation=2.0, sharpness=1.0, nll=0.0)(measured) == 1.0
    assert Fitness(representation=0.0, sharpness=0.0, nll=0.5)({"nll": 2.0}) == 1.0
    with pytest.raises(KeyError):
        FITNESS({"representation": 0.25})
