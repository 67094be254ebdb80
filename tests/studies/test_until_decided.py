"""Seeds that are added until each difference is decided: which runs it costs, and what the table says."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door import command
from study_options import study_options
from test_verification import BASE, grid, paths

from kdx.core.errors import UserError
from kdx.runs.results import Result
from kdx.studies.until_decided import Key, run_until_decided
from kdx.tables.manifest import read_manifest
from kdx.tables.sequential import Seeds
from kdx.tables.table import Table

GAINS = {"alone": 0.0, "large": 0.05, "none": 0.0, "noisy": 0.004}
NOISE = {"alone": 0.001, "large": 0.001, "none": 0.001, "noisy": 0.02}


def result(row: str, seed: int) -> Result:
    draws = np.random.default_rng([sorted(GAINS).index(row), seed])
    value = 0.7 + GAINS[row] + float(draws.normal(0, NOISE[row]))
    data = {
        "seed": seed,
        "metrics": {"last": {"test/top1": value}, "best_on_test": {}, "val_selected": None},
        "examples": {"training": 100, "test": 10_000},
        "steps": 10,
        "device": {"name": "a CPU", "threads": 1},
        "code": {"commit": None, "dirty": None},
        "versions": {"torch": "2"},
        "teacher": None,
    }
    return Result(Path("/nowhere"), data)


def trainer(missing: Sequence[Key] = ()) -> tuple[list[list[Key]], Callable[[Sequence[Key]], dict[Key, Result]]]:
    """Rounds of runs that were asked for, and the function that answers."""
    rounds: list[list[Key]] = []

    def run(keys: Sequence[Key]) -> dict[Key, Result]:
        rounds.append(list(keys))
        return {key: result(*key) for key in keys if key not in missing}

    return rounds, run


def decide(rule: Seeds, rows: Sequence[str] = tuple(GAINS), listed: Sequence[int] = (0, 1, 2), **run: Any):
    rounds, train = trainer(**run)
    found = run_until_decided(rows, "alone", listed, rule, "test/top1", "last", train)
    return rounds, *found


def test_a_decided_row_has_no_further_seeds_and_the_baseline_as_many_as_the_longest():
    rounds, seeds, found, ended = decide(Seeds(width=0.3, max=7, holm=True))
    assert ended == {
        "alone": "baseline",
        "large": "excludes zero",
        "none": "half width below 0.3",
        "noisy": "7 seeds",
    }
    # with three seeds no evidence can survive Holm's correction over three rows
    assert seeds["large"] == [0, 1, 2, 3] and 3 <= len(seeds["none"]) < 7
    assert seeds["noisy"] == seeds["alone"] == [0, 1, 2, 3, 4, 5, 6]
    assert len(rounds[0]) == 12  # three seeds of each row, before the first decision
    every = [key for keys in rounds for key in keys]
    assert len(every) == len(set(every)) == sum(map(len, seeds.values())) == len(found)
    assert rounds[-1] == [("alone", 6), ("noisy", 6)]


def test_without_holm_a_row_ends_where_its_own_interval_excludes_zero():
    _, seeds, _, ended = decide(Seeds(width=None, max=7, holm=False))
    assert ended["large"] == "excludes zero" and seeds["large"] == [0, 1, 2]


def test_the_seeds_of_the_study_come_first():
    _, seeds, _, _ = decide(Seeds(width=None, max=5, holm=True), rows=("alone", "noisy"), listed=(3, 9))
    assert seeds["noisy"] == [3, 9, 10, 11, 12]


def test_a_row_without_a_result_ends_and_the_others_go_on():
    _, seeds, _, ended = decide(Seeds(width=None, max=5, holm=True), missing=[("none", 1)])
    assert ended["none"] == "a run is missing" and seeds["none"] == [0, 1, 2] and ended["noisy"] == "5 seeds"


def test_the_table_shows_the_seeds_of_each_row_and_why_it_ended():
    _, seeds, found, ended = decide(Seeds(width=None, max=5, holm=True))
    table = Table.build(
        title="T",
        results={row: {seed: found[row, seed] for seed in own} for row, own in seeds.items()},
        columns=["test/top1", "gain"],
        protocol="last",
        baseline="alone",
        cost_row=None,
        teacher_row=False,
        wanted=3,
        stopped=ended,
    )
    rows = {cells[0]: cells[1:] for cells in table.rows()}
    assert table.header()[-2:] == ["n", "stopped"]
    assert {row: cells[-2:] for row, cells in rows.items()} == {
        "alone": ["5", "baseline"],
        "large": ["4", "excludes zero"],
        "none": ["5", "5 seeds"],
        "noisy": ["5", "5 seeds"],
    }
    assert rows["large"][1].endswith("*") and not rows["noisy"][1].endswith("*")
    assert any("confidence sequence" in note for note in table.notes)
    lines = {(c["row"], c["metric"]): c for c in csv.DictReader(io.StringIO(table.csv()))}
    assert lines["large", "gain"]["stopped"] == "excludes zero" and lines["large", "gain"]["seeds"] == "0 1 2 3"
    assert float(lines["large", "gain"]["p_holm"]) == pytest.approx(3 * float(lines["large", "gain"]["p"]))


@pytest.mark.slow
def test_a_study_runs_its_rows_until_they_are_decided(tmp_path: Path, capsys):
    rows = {"alone": ["method=supervised"], "still": ["method=supervised", "optimizer.lr=1e-6"]}
    study = grid(overrides=[o for o in BASE if not o.startswith("optimizer")], rows=rows, baseline="alone")
    asked = study_options(seeds=Seeds(width=None, max=4, holm=True))
    assert study.execute(paths(tmp_path), asked) == []
    first = (tmp_path / "studies" / "tiny" / "table.md").read_text()
    manifest = read_manifest(tmp_path / "studies" / "tiny" / "table.manifest.json")
    done = len(list(tmp_path.glob("runs/*/DONE")))
    assert "| stopped |" in first and len(manifest.runs) == done >= 6
    # what is finished decides the same again
    assert study.execute(paths(tmp_path), study_options(seeds=Seeds(width=None, max=4, holm=True), only="render")) == []
    assert (tmp_path / "studies" / "tiny" / "table.md").read_text() == first
    seen = study.seen(paths(tmp_path), study_options())
    assert sum(map(len, seen.values())) == done


def test_studies_without_a_decision_refuse_the_option(capsys):
    with pytest.raises(UserError, match="has no baseline"):
        grid().execute({}, study_options(seeds=Seeds(width=None, max=4, holm=True)))
    said = command(capsys, "study", "study=takd/digits", "seeds=auto")
    assert said.code == 2 and "seeds: a Chain study does not apply this option" in said.err[0]
    said = command(capsys, "study", "study=demo", "seeds=auto", "seeds.max=2")
    assert said.code == 2 and "seeds.max=2: the first decision is made after 3 seeds" in said.err[0]
