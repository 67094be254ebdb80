"""The study of ranks: its notes from results, and its published numbers against the table that has them."""

from pathlib import Path
from typing import Any

import pytest
from study_options import study_options
from test_until_decided import GAINS, result
from test_verification import grid, paths

from kdx.config.compose import compose
from kdx.core.errors import UserError
from kdx.runs.build import make
from kdx.studies.ranking import Ranking

PUBLISHED = {"p": {"alone": 60.0, "large": 65.0, "noisy": 61.0, "none": 60.5}, "few": {"alone": 1.0, "large": 2.0}}


def ranking(**changed: Any) -> Ranking:
    rows = {row: ["method=supervised"] for row in GAINS}
    base = {"grid": grid(rows=rows, baseline="alone", columns=["test/top1", "gain"]), "published": PUBLISHED}
    return Ranking(**{**base, "source": "S"} | changed)


def test_the_notes_rank_gains_over_the_baseline():
    results = {row: {seed: result(row, seed) for seed in range(4)} for row in GAINS}
    # the baseline's own numbers are shifted: gains, not numbers, are compared
    own, few, source = ranking().notes(results)
    assert own.startswith("Kendall's tau with the published numbers of p over 3 rows: ")
    assert few == "1 rows have published gains of few: too few for a rank correlation" and source == "published: S"
    assert ranking().notes({row: {} for row in GAINS})[0].endswith("too few for a rank correlation")


def test_a_row_or_scale_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"study\.published\.p: 'KDD' is no row"):
        ranking(published={"p": {"KDD": 1.0}})
    with pytest.raises(UserError, match="needs the row that they are over"):
        ranking(grid=grid())
    with pytest.raises(UserError, match="scale=big: this study has no scales"):
        ranking().execute(paths(tmp_path), study_options(scale="big"))


def test_the_published_numbers_are_those_of_the_benchmarks_table():
    ours = compose(["study=ranking/cifar100"], "study").config["study"]
    theirs = compose(["study=crd/same_arch"], "study").config["study"]
    columns, values = list(theirs["columns"]), theirs["reported"]["RepDistiller"]["values"]
    assert theirs["reported"]["RepDistiller"]["protocol"] == "last"
    for pair, numbers in ours["published"].items():
        place = columns.index(pair)
        for row, value in numbers.items():
            assert value == values["student alone" if row == "alone" else row][place], (pair, row)
    assert isinstance(make(ours), Ranking)


@pytest.mark.slow
def test_every_row_of_the_shipped_study_runs(tmp_path: Path):
    study = make(compose(["study=ranking/cifar100"], "study").config["study"])
    asked = study_options(scale="smoke", fused_limit=16, overrides=["trainer.threads=1"])
    assert study.execute(paths(tmp_path), asked) == []
    text = (tmp_path / "studies" / "ranking" / "cifar100" / "smoke" / "table.md").read_text()
    assert "Kendall's tau with the published numbers of resnet56-resnet20 over 8 rows" in text
    assert (tmp_path / "studies/ranking/cifar100/smoke/table.manifest.json").exists()
