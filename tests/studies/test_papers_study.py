"""The study of all papers: hours before it starts, failures that stop no other study, pages, and a second call."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CLASSES, STUDENT, TINY
from study_options import study_options

from kdx.config.compose import compose
from kdx.config.layout import OWN, config_file, options
from kdx.config.validate import check
from kdx.core.errors import UserError
from kdx.runs.build import make
from kdx.studies.grid import Grid
from kdx.studies.papers import Papers
from kdx.tables.claims.index import is_paper_table

GRID: dict[str, Any] = {
    "_target_": "kdx.studies.grid.Grid",
    "name": "tiny/good",
    "title": "Tiny runs",
    "overrides": [*CLASSES, *TINY, *STUDENT, "trainer.duration.steps=2", "evals.test.every=null"],
    "seeds": [0],
    "seed_overrides": ["seed={seed}"],
    "rows": {"alone": ["method=supervised"], "slow": ["method=supervised", "optimizer.lr=0.001"]},
    "baseline": None,
    "cost_row": None,
    "teacher_row": False,
    "columns": ["test/top1"],
    "protocol": "last",
}
PAPER = {"title": "A paper", "source": "Someone", "claim": "It works."}


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Papers:
    """A paper with a study whose runs cannot be composed, one with wrong keys, one that stops, and one that works."""
    monkeypatch.setenv(OWN, str(tmp_path / "configs"))
    folder = tmp_path / "configs" / "study" / "tiny"
    folder.mkdir(parents=True)
    wrong = {**GRID, "name": "tiny/wrong", "overrides": [*GRID["overrides"], "optimizer.lrr=1"]}
    raising = {**GRID, "name": "tiny/raising", "columns": ["gain", "test/top1"]}
    stopping = {**GRID, "name": "tiny/stopping"}
    for name, node in (("good", GRID), ("wrong", wrong), ("raising", raising), ("stopping", stopping)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(node))
    execute = Grid.execute

    def stopped(self: Grid, *given: Any) -> list[str]:
        if self.name == "tiny/stopping":
            raise OSError(28, "No space left on device", "some/file")
        return execute(self, *given)

    monkeypatch.setattr(Grid, "execute", stopped)
    hours = {
        "tiny/wrong": {"cpu": 2.0},
        "tiny/raising": {"cpu": 3.0},
        "tiny/stopping": {"cpu": 0.5},
        "tiny/good": {"cpu": 1.0, "paper": 7.0},
    }
    return Papers(name="all", title="All", papers={"one": {**PAPER, "studies": hours}})  # pyright: ignore


def paths(folder: Path) -> dict[str, str]:
    return {"data": str(folder), "outputs": str(folder), **{k: str(folder / k) for k in ("runs", "teachers", "memos")}}


def test_it_says_the_hours_goes_on_after_failures_and_continues(
    studies: Papers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    lines = studies.execute(paths(tmp_path), study_options(scale="cpu"))
    assert [line.partition(":")[0] for line in lines] == ["tiny/wrong", "tiny/raising", "tiny/stopping"]
    assert "lrr" in lines[0] and "gain" in lines[1] and "No space left" in lines[2]
    said = capsys.readouterr().out
    assert said.startswith("4 studies; what is missing takes about 1.5 hours of one core")
    (row,) = [line for line in said.splitlines() if line.startswith("one") and "tiny/good " in line]
    assert row.split()[2:] == ["0", "of", "2", "1.00"]
    assert (tmp_path / "studies" / "tiny" / "good" / "table.csv").is_file()
    page = (tmp_path / "studies" / "all" / "one.md").read_text()
    assert page.startswith("# A paper") and "## Tiny runs" in page and "`kdx study study=tiny/wrong`" in page

    monkeypatch.setattr("kdx.runs.run._train", lambda *_: pytest.fail("it trained"))
    studies.execute(paths(tmp_path), study_options(scale="cpu"))
    said = capsys.readouterr().out
    assert said.startswith("4 studies; what is missing takes about 0.0 hours") and "2 of 2" in said


def test_a_scale_takes_the_studies_that_name_it(studies: Papers, tmp_path: Path):
    (step,) = studies.plan(paths(tmp_path), study_options(scale="paper"))
    # a study without presets has one size, so it runs as it is
    assert (step.name, step.hours, step.options.scale) == ("tiny/good", 7.0, None)
    for scale in (None, "smoke"):
        with pytest.raises(UserError, match=r"^scale=(null|smoke): this study has cpu, paper$"):
            studies.plan(paths(tmp_path), study_options(scale=scale))
    with pytest.raises(UserError, match="rows: no name matches 'two'"):
        studies.plan(paths(tmp_path), study_options(scale="cpu", rows=["two"]))


def test_a_study_that_does_not_exist_is_named():
    paper = {**PAPER, "studies": {"kdvr/noize": {"cpu": 1.0}}}
    with pytest.raises(UserError, match=r"study\.papers\.one\.studies: there is no study 'kdvr/noize'.*kdvr/noise"):
        Papers(name="all", title="All", papers={"one": paper})  # pyright: ignore


def test_the_shipped_list_names_scales_that_its_studies_have():
    node = compose(["study=papers/all"], "study").config["study"]
    assert check(node, "study") == [] and isinstance(make(node), Papers)
    for paper in node["papers"].values():
        for name, hours in paper["studies"].items():
            assert name in options("study")
            of = yaml.safe_load(config_file("study", name).read_text())
            if is_paper_table(of):
                assert set(hours) <= set(of["scales"]), name
            elif "smoke" in hours:
                assert "smoke" in of["scales"], name
            assert all(0 < hour for hour in hours.values()), name
