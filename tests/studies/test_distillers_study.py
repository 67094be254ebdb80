"""The study that searches for distillers, on tiny runs."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from conftest import CLASSES, STUDENT, TINY
from study_options import study_options

from kdx.config.compose import compose
from kdx.config.layout import take_config_dirs
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.pool.run_fused import run_together
from kdx.runs.export import folder_of
from kdx.runs.prepare import prepare
from kdx.runs.results import Result
from kdx.studies.distillers.evaluate import Evaluate
from kdx.studies.distillers.history import load
from kdx.studies.distillers.proposers import Evolution, RandomSearch
from kdx.studies.distillers.screen import Limits, Screen
from kdx.studies.distillers.search import Fitness, Search
from kdx.studies.distillers.space import Genotype, Space
from kdx.studies.distillers.study import Distillers, validated

SPACE = Space(
    inputs={"logits": "logits", "pooled": ["pooled"], "last": ["last"]},
    vectors=["logits", "pooled"],
    attention=["none", "channel"],
    scope=["none", "pool4", "examples"],
    normalise=["none", "unit_channels", "softmax_channels"],
    distance=["l1", "mse", "kl"],
    temperature=[4.0],
    weight=[1.0, 25.0],
)
OVERRIDES = [*CLASSES, *TINY, *STUDENT, "dataset.val_fraction=0.3", "logger=none"]
PROXY = ["evals=search", "evals.rejection.least_accuracy=0.01", "trainer.duration.steps=4"]


def study(**changed: Any) -> Distillers:
    fitness = Fitness(representation=1.0, sharpness=1.0, nll=0.0)
    evolution = Search(
        proposer=Evolution(population=2, crossover=0.5, mutation=0.5, newcomers=0.2),
        trainings=4,
        batch=2,
        screen=Limits(batches=1, least=1e-6, most=1e6),
        shrink=None,
        fitness=fitness,
    )
    settings: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny searches",
        "overrides": OVERRIDES,
        "proxy": PROXY,
        "vectors": None,
        "final": ["trainer.duration.steps=6", "evals.test.every=null", "evals.val.every=null"],
        "seeds": [0],
        "seed_overrides": ["seed={seed}"],
        "space": SPACE,
        "searches": {"evolution": evolution, "random": replace(evolution, proposer=RandomSearch(), trainings=2)},
        "main": "evolution",
        "rival": "random",
        "finalists": ["evolution", "random"],
        "baselines": {"KD": ["method=kd"]},
        "final_seeds": [7],
        "checked": 2,
        "metric": "test/top1",
        "reported": None,
    }
    return Distillers(**settings | changed)


def paths(folder: Path) -> dict[str, str]:
    return {"data": str(folder), "outputs": str(folder), **{k: str(folder / k) for k in ("runs", "teachers", "memos")}}


def candidate(folder: Path, *own: str) -> RunConfig:
    """The config of a candidate as `kdx train` gives it, without the evaluators of the test set."""
    places = [f"paths.{key}={value}" for key, value in paths(folder).items()]
    return validated(prepare(compose([*OVERRIDES, *PROXY, "seed=0", *own, *places])))


def test_candidates_are_ordinary_runs_that_train_together_and_may_crash(tmp_path, monkeypatch):
    base = candidate(tmp_path, "method=kdzero")
    rng = Random(1)
    good, bad = SPACE.draw(rng), SPACE.draw(rng)
    teams = []
    monkeypatch.setattr(
        "kdx.pool.pool.run_together", lambda configs: teams.append(len(configs)) or run_together(configs)
    )
    evaluate = Evaluate(SPACE, base, study_options(fused_limit=4), None)
    monkeypatch.setattr(
        evaluate, "config", lambda g: replace(base, method=SPACE.method(g) if g == good else {"_target_": "kdx.no.No"})
    )
    (run, result), (_, reason) = evaluate.train([good, bad])
    assert teams == [1, 2]  # the teacher, then both
    assert isinstance(result, Result) and isinstance(reason, str) and "kdx.no" in reason
    assert not any("test" in name.split("/") for name in result.data["metrics"]["last"])
    typed = candidate(tmp_path, "method=kdzero", *SPACE.overrides(good))
    assert folder_of(typed).name == run
    # the reason is the same when the failure is looked up again
    assert evaluate.train([good, bad])[1][1] == reason


@pytest.mark.slow
def test_it_searches_trains_the_winners_and_exports_them(tmp_path, monkeypatch):
    options = study_options(fused_limit=4, fused=True)
    assert study().execute(paths(tmp_path), options) == []
    folder = tmp_path / "studies" / "tiny"
    history = load(folder / "history" / "evolution-0.jsonl", None)
    assert history.spent == 4
    runs = {path.name: json.loads((path / "result.json").read_text()) for path in (tmp_path / "runs").iterdir()}
    for trial in history.trials:
        if trial.state == "done":
            # a candidate is the ordinary run of its config, and has never seen the test set
            last = runs[trial.run]["metrics"]["last"]
            assert trial.fitness == last["gaps/val/representation"] + last["gaps/val/sharpness"]
            assert not any("test" in name.split("/") for name in last)

    best = history.best()
    assert best is not None
    parts = best.genotype
    by_hand = candidate(tmp_path, "method=kdzero", *SPACE.overrides(parts))
    assert folder_of(by_hand).name == best.run

    found = folder / "configs" / "method" / "found" / "evolution_0.yaml"
    assert "# acronym: evolution 0" in found.read_text() and f"fitness {best.fitness:.4f}" in found.read_text()
    take_config_dirs([f"--config-dir={folder / 'configs'}"])
    exported = candidate(tmp_path, "method=found/evolution_0")
    assert folder_of(exported).name.rsplit("-", 1)[1] == best.run.rsplit("-", 1)[1]

    page, table = (folder / "search.html").read_text(), (folder / "table.md").read_text()
    assert page.count("data:image/png;base64") == 3 and str(parts).replace(">", "&gt;") in page
    assert "best of evolution" in table and "| evolution |" in table and "Kendall's tau" in table
    monkeypatch.setattr("kdx.runs.run._train", lambda *_: pytest.fail("it trained"))
    for again in (study_options(only="render"), options):
        assert study().execute(paths(tmp_path), again) == []
        assert (folder / "table.md").read_text() == table


def test_a_screen_refuses_what_cannot_teach(tmp_path):
    base = validated(
        prepare(compose([*OVERRIDES, *PROXY, "method=kdzero", *(f"paths.{k}={v}" for k, v in paths(tmp_path).items())]))
    )
    screen = Screen(base, Limits(batches=1, least=1e-4, most=1e4))
    good = Genotype(
        input="logits",
        attention="none",
        scope="none",
        normalise="softmax_channels",
        distance="kl",
        temperature=4.0,
        weight=1.0,
    )
    term = SPACE.term(good)
    assert screen.refuses(term, 1.0) is None
    assert "is not from 0.0001 to 10000" in (screen.refuses(term, 1e9) or "")
    assert "is not from" in (screen.refuses(term, 1e-9) or "")
    small = SPACE.term(replace(good, input="last", normalise="none", distance="mse", temperature=None, scope="pool4"))
    assert "cannot be built: Composed: scope=pool4 cannot divide" in (screen.refuses(small, 1.0) or "")
    for name, said in (
        ("Nan", "its loss is nan"),
        ("Flat", "its gradient is 0"),
        ("Rise", "is not below"),
        ("Steep", "not finite"),
    ):
        assert said in (screen.refuses({"_target_": f"{__name__}.{name}", "align": "none"}, 1.0) or "")


class Planted(torch.nn.Module):
    """A term with a fault."""

    def __init__(self, align: str):
        super().__init__()

    def build(self, *_: Any) -> None: ...

    def forward(self, student: Any, teacher: Any, batch: Any, progress: Any) -> torch.Tensor:
        return self.value((student.logits - teacher.logits.detach()).square().mean(1))

    def value(self, gaps: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Nan(Planted):
    def value(self, gaps: torch.Tensor) -> torch.Tensor:
        return gaps * torch.nan


class Flat(Planted):
    def value(self, gaps: torch.Tensor) -> torch.Tensor:
        return gaps * 0 + 1


class Rise(Planted):
    """Largest at the teacher."""

    def value(self, gaps: torch.Tensor) -> torch.Tensor:
        return 1 / (1 + gaps)


class Steep(Planted):
    """Finite, with the gradient of a root at 0."""

    def value(self, gaps: torch.Tensor) -> torch.Tensor:
        return gaps + (gaps - gaps.detach()).sqrt()


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"study\.main: 'evolutoin' is no search; searches: evolution, random"):
        study(main="evolutoin")
    with pytest.raises(UserError, match=r"study\.final_seeds: 0 is the seed of a search"):
        study(final_seeds=[0, 1])
    with pytest.raises(UserError, match="study.proxy needs evals=search"):
        study(proxy=[]).execute(paths(tmp_path), study_options())
    with pytest.raises(UserError, match=r"study\.space\.vectors: 'poled' is no input"):
        replace(SPACE, vectors=["poled"])


@pytest.mark.slow
def test_a_search_killed_twenty_times_has_the_same_history(tmp_path):
    """Each attempt is a process that SIGKILL ends after a random time, until one comes to its end."""
    longer = replace(study().searches["evolution"], trainings=40)
    whole = study(baselines={}, checked=0, searches={"evolution": longer}, rival="evolution", finalists=[])

    def attempt(folder: Path) -> int:
        child = os.fork()
        if not child:
            os.close(1)
            code = 1
            try:
                code = len(whole.execute(paths(folder), study_options(fused_limit=4)))
            finally:
                os._exit(code)
        return child

    began = time.monotonic()
    _, status = os.waitpid(attempt(tmp_path / "alone"), 0)
    longest = (time.monotonic() - began) / 20
    assert status == 0
    rng, kills, partial = Random(0), 0, set()
    written = tmp_path / "killed" / "studies" / "tiny" / "history" / "evolution-0.jsonl"

    def finished_runs() -> int:
        return len(list((tmp_path / "killed" / "runs").glob("*/DONE")))

    while kills < 20:
        before, child, ended = finished_runs(), attempt(tmp_path / "killed"), 0
        while not ended and finished_runs() == before:  # each attempt gets at least one run further
            time.sleep(0.02)
            ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(rng.uniform(0, longest))
        if not ended:
            ended, status = os.waitpid(child, os.WNOHANG)
        if ended:  # it came to its end
            assert status == 0
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        kills += 1
        partial.add(load(written, None).spent)
    _, status = os.waitpid(attempt(tmp_path / "killed"), 0)
    assert status == 0
    assert len(partial) > 5, "the kills did not come in the middle of the search"
    alone = tmp_path / "alone" / "studies" / "tiny" / "history" / "evolution-0.jsonl"
    assert written.read_bytes() == alone.read_bytes()


@pytest.mark.slow
def test_two_processes_on_one_folder_end_with_one_history(tmp_path):
    """They wait for each other's runs, and one does not try again what the other rejected."""
    longer = replace(study().searches["evolution"], trainings=24)
    proxy = [*PROXY, "evals.rejection.least_accuracy=1.2"]
    whole = study(baselines={}, checked=0, searches={"evolution": longer}, rival="evolution", finalists=[], proxy=proxy)

    def attempt(folder: Path, delay: float) -> int:
        child = os.fork()
        if not child:
            code = 1
            try:
                time.sleep(delay)
                code = len(whole.execute(paths(folder), study_options(fused_limit=4)))
            finally:
                os._exit(code)
        return child

    def history(folder: Path) -> Path:
        return folder / "studies" / "tiny" / "history" / "evolution-0.jsonl"

    def weights(folder: Path) -> dict[str, bytes]:
        return {file.parent.name: file.read_bytes() for file in (folder / "runs").glob("*/student.safetensors")}

    assert os.waitpid(attempt(tmp_path / "alone", 0), 0)[1] == 0
    states = {trial.state for trial in load(history(tmp_path / "alone"), None).trials}
    assert {"done", "rejected"} <= states and "failed" not in states
    for delay in (0.0, 2.0):
        folder = tmp_path / f"both-{delay}"
        children = [attempt(folder, 0), attempt(folder, delay)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert history(folder).read_bytes() == history(tmp_path / "alone").read_bytes()
        assert weights(folder) == weights(tmp_path / "alone")
