"""Comparisons of trained networks: measurements against loops over examples, and a study that trains nothing itself."""

import csv
import json
import math
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from conftest import CLASSES, STUDENT, TINY
from safetensors.torch import load_file
from study_options import study_options
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.spec import DataSpec, Images
from kdx.models.attack import BoundaryAttack
from kdx.studies.measures.base import pair
from kdx.studies.measures.boundaries import Boundaries
from kdx.studies.measures.predictions import Predictions
from kdx.studies.networks import Networks
from kdx.studies.options import Options
from kdx.tasks.classes import Classes

NUM_CLASSES, EXAMPLES = 4, 23


class Linear(nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(6, NUM_CLASSES, generator=g, dtype=torch.float64))

    def forward(self, inputs: torch.Tensor) -> Outputs:
        return Outputs(inputs.flatten(1) @ self.weight)


class Split:
    """Batches of 5 with a short last one, read anew each time."""

    def __init__(self):
        g = torch.Generator().manual_seed(9)
        self.inputs = torch.randn(EXAMPLES, 1, 2, 3, generator=g, dtype=torch.float64)
        self.labels = torch.randint(NUM_CLASSES, (EXAMPLES,), generator=g)
        self.reads = 0
        self.spec = DataSpec(Classes(NUM_CLASSES), Images((1, 2, 3), (0.0,), (1.0,)), EXAMPLES)

    def __iter__(self) -> Iterator[Batch]:
        self.reads += 1
        for start in range(0, EXAMPLES, 5):
            index = torch.arange(start, min(start + 5, EXAMPLES))
            yield Batch.of_classes(self.inputs[index], self.labels[index], index)


NETS = {"a": Linear(1), "b": Linear(2), "c": Linear(3)}


def test_predictions_are_a_loop_over_examples():
    split = Split()
    found = Predictions()(NETS, split)
    told = {name: [net(x[None]).logits[0].tolist() for x in split.inputs] for name, net in NETS.items()}
    guess = {name: [row.index(max(row)) for row in rows] for name, rows in told.items()}
    labels = split.labels.tolist()
    assert list(found) == [*NETS, *(pair(*names) for names in permutations(NETS, 2))] and split.reads == 1
    for name in NETS:
        assert found[name] == {"accuracy": sum(g == y for g, y in zip(guess[name], labels, strict=True)) / EXAMPLES}
    for one, other in permutations(NETS, 2):
        same = wins = errors = 0
        kl = 0.0
        for i, label in enumerate(labels):
            same += guess[one][i] == guess[other][i]
            wins += guess[one][i] == label and guess[other][i] != label
            errors += guess[other][i] != label
            p, q = ([math.exp(v) for v in told[name][i]] for name in (one, other))
            p, q = ([v / sum(row) for v in row] for row in (p, q))
            kl += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        row = found[pair(one, other)]
        assert 0 < wins < errors < EXAMPLES
        assert row["agreement"] == same / EXAMPLES and row["wins"] == wins / EXAMPLES
        assert row["win rate"] == wins / errors
        assert row["KL"] == pytest.approx(kl / EXAMPLES, rel=1e-12)


def test_agreement_is_symmetric_and_complete_with_itself():
    found = Predictions()({**NETS, "a again": NETS["a"]}, Split())
    for one, other in permutations([*NETS, "a again"], 2):
        assert found[pair(one, other)]["agreement"] == found[pair(other, one)]["agreement"]
        difference = found[pair(one, other)]["wins"] - found[pair(other, one)]["wins"]
        assert difference == pytest.approx(found[one]["accuracy"] - found[other]["accuracy"], abs=1e-15)
    itself = found[pair("a", "a again")]
    assert itself == {"agreement": 1.0, "wins": 0.0, "win rate": 0.0, "KL": pytest.approx(0.0, abs=1e-15)}


def test_there_is_no_win_rate_against_a_network_without_errors():
    split = Split()
    split.labels = NETS["a"](split.inputs).logits.argmax(1)
    found = Predictions()(NETS, split)
    assert "win rate" not in found[pair("b", "a")] and found[pair("b", "a")]["wins"] == 0.0
    assert 0 < found[pair("a", "b")]["win rate"] == 1.0  # a is right wherever b is wrong


def test_boundaries_of_equal_networks_are_equal_and_lengths_do_not_depend_on_the_order():
    attack = BoundaryAttack(steps=60, step_size=0.3, margin=1e-4, low=-9.0, high=9.0)
    split = Split()
    split.labels = NETS["a"](split.inputs).logits.argmax(1)  # pairs are examples that both classify as labelled
    found = Boundaries(attack=attack, targets=None)({"a": NETS["a"], "a again": NETS["a"], "b": NETS["b"]}, split)
    assert found[pair("a", "a again")]["magsim"] == pytest.approx(1.0)
    assert found[pair("a", "a again")]["angsim"] == pytest.approx(1.0)
    ours, theirs = found[pair("a", "b")], found[pair("b", "a")]
    assert 0 < ours["reached"] <= 1 and ours["magsim"] < 0.99
    # with all classes as targets the two orders move the same examples
    assert ours == pytest.approx(theirs, rel=1e-9)


def study(**changed: Any) -> Networks:
    settings: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny networks",
        "overrides": [*CLASSES, *TINY, *STUDENT, "trainer.duration.steps=3", "evals.test.every=null"],
        "seeds": [0, 1],
        "networks": {
            "student": ["method=kd", "teacher.net.widths=[4,4,6,6]", "teacher.checkpoint='{teacher}'"],
            "teacher": ["method=supervised", "student.net.widths=[4,4,6,6]"],
        },
        "split": "test",
        "measure": Predictions(),
    }
    return Networks(**settings | changed)


def paths(folder: Path) -> dict[str, str]:
    return {"data": str(folder), "outputs": str(folder), **{k: str(folder / k) for k in ("runs", "teachers", "memos")}}


def options(**changed: Any) -> Options:
    return study_options(**changed)


def test_it_asks_for_runs_that_are_missing_and_trains_none_that_are_there(tmp_path, monkeypatch, capsys):
    assert study().execute(paths(tmp_path), options(only="render")) == ["no seed is complete"]
    assert not (tmp_path / "runs").exists() and study().finished(paths(tmp_path), options()) == (0, 4)
    assert study().execute(paths(tmp_path), options()) == []
    assert study().finished(paths(tmp_path), options()) == (4, 4)
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 4 and not (tmp_path / "teachers").exists()  # the teacher is one of the networks
    text = (tmp_path / "studies" / "tiny" / "table.csv").read_text()

    monkeypatch.setattr("kdx.runs.run._train", lambda *_: pytest.fail("it trained"))
    for asked in (options(), options(only="render")):
        assert study().execute(paths(tmp_path), asked) == []
        assert (tmp_path / "studies" / "tiny" / "table.csv").read_text() == text

    # against what the runs themselves say that they predict
    told = {}
    for run in runs:
        kept, seed = load_file(run / "predictions.safetensors"), int(run.name.split("-seed")[1].split("-")[0])
        told["student" if "-kd-" in run.name else "teacher", seed] = kept["student/prediction"], kept["label"]
    cells = {(c["row"], c["metric"]): c for c in csv.DictReader(text.splitlines())}
    for one, other in permutations(("student", "teacher")):
        same, wins = [], []
        for seed in (0, 1):
            (a, labels), (b, _) = told[one, seed], told[other, seed]
            same.append(float((a == b).double().mean()))
            wins.append(float(((a == labels) & (b != labels)).double().mean()))
        for column, values in (("agreement", same), ("wins", wins)):
            cell = cells[pair(one, other), column]
            assert float(cell["mean"]) == pytest.approx(mean(values), abs=1e-12) and cell["n"] == "2"
            assert float(cell["std"]) == pytest.approx(stdev(values), abs=1e-12)
    table = (tmp_path / "studies" / "tiny" / "table.md").read_text()
    assert "| student / teacher |" in table and "over n seeds [0, 1] of both networks; test examples" in table
    assert all(f"- {note}" in table for note in Predictions.notes)


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one seed and two networks"):
        study(networks={"student": []})
    with pytest.raises(UserError, match=r"study\.networks\.student: there is no link 'techer'"):
        study(networks={"student": ["teacher.checkpoint='{techer}'"], "teacher": []})
    networks = {"one": ["method=supervised"], "other": ["method=supervised", "dataset.test_size=20"]}
    with pytest.raises(UserError, match=r"'other' and 'one' have different test examples \(dataset\.test_size\)"):
        study(networks=networks, seeds=[0]).execute(paths(tmp_path), options())
    # a part of the training set leaves the test set alone
    networks = {"one": ["method=supervised"], "other": ["method=supervised", "dataset.fraction=0.5"]}
    assert study(networks=networks, seeds=[0]).execute(paths(tmp_path), options()) == []
    with pytest.raises(UserError, match=r"different train examples \(dataset\.fraction\)"):
        study(networks=networks, seeds=[0], split="train").execute(paths(tmp_path), options())


class Seen:
    """Keeps what a measurement is given, and draws an empty picture."""

    metrics, notes = (), ()

    def __call__(self, networks, batches):
        self.networks, self.examples = dict(networks), sum(len(batch) for batch in batches)
        return {
            name: {"classes": float(net(torch.zeros(1, 3, 32, 32)).logits.shape[1])} for name, net in networks.items()
        }

    def draw(self, networks, batches, path):
        path.write_bytes(b"picture")


def test_networks_are_compared_on_other_examples_and_as_they_started(tmp_path, capsys):
    seen = Seen()
    networks = {"one": ["method=supervised"], "other": ["method=supervised", "student.checkpoint='{one}'"]}
    changed = {"networks": networks, "seeds": [0], "measure": seen, "starts": ["one", "other"]}
    made = study(**changed, examples=["dataset.test_size=20", "dataset.seed=3"])
    assert made.execute(paths(tmp_path), options()) == []
    assert list(seen.networks) == ["one", "one at start", "other", "other at start"] and seen.examples == 20
    weights = {name: dict(net.named_parameters()) for name, net in seen.networks.items()}
    for name, value in weights["one"].items():
        # the second network starts where the first one ended, and three steps move it
        assert torch.equal(weights["other at start"][name], value)
    assert any(not torch.equal(weights["one"][n], weights["one at start"][n]) for n in weights["one"])
    assert any(not torch.equal(weights["other"][n], weights["one"][n]) for n in weights["one"])
    folder = tmp_path / "studies" / "tiny"
    assert (folder / "picture.png").read_bytes() == b"picture"
    assert "- examples: dataset.test_size=20 dataset.seed=3" in (folder / "table.md").read_text()
    with pytest.raises(UserError, match=r"study\.starts: there is no link 'two'"):
        study(**{**changed, "starts": ["two"]})


def test_a_scale_changes_runs_seeds_and_examples_and_has_a_folder_of_its_own(tmp_path, capsys):
    seen = Seen()
    networks = {"one": ["method=supervised"], "other": ["method=supervised", "optimizer.lr=0.01"]}
    smoke = {
        "overrides": ["dataset.test_size=30", "dataset.train_size=40"],
        "seeds": [4],
        "rows": {"one": ["trainer.duration.steps=1"]},
    }
    small = {"networks": networks, "measure": seen, "scales": {"smoke": smoke}}
    claim = {"left": {"row": "one", "column": "classes"}, "expect": "above", "right": 0, "margin": 0}
    claims = {"some": {"sentence": "Some.", "printed": None, "unit": "", "requires": [claim]}}
    made = study(**small, examples=["dataset.test_size=20", "dataset.seed=3"], claims=claims)
    assert made.execute(paths(tmp_path), options(scale="smoke")) == []
    assert seen.examples == 30  # the preset's test set, not that of `examples`
    steps = {}
    for run in (tmp_path / "runs").iterdir():
        result = json.loads((run / "result.json").read_text())
        assert result["seed"] == 4 and result["examples"]["training"] == 40
        steps[result["steps"]] = run
    assert set(steps) == {1, 3}
    table = (tmp_path / "studies" / "tiny" / "smoke" / "table.md").read_text()
    assert "Claims" not in table  # a claim is about the study's own scale
    with pytest.raises(UserError, match=r"^scale=big: this study has smoke$"):
        made.execute(paths(tmp_path), options(scale="big"))
