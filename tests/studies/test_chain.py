"""Runs that start from each other's results: their order, their places, and what a death in the middle leaves."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from conftest import CLASSES, STUDENT, TINY
from deaths import Moment, die_at
from study_options import study_options
from traces import outcome

from kdx.config.compose import ConfigError
from kdx.core.errors import UserError
from kdx.studies.chain import Chain
from kdx.studies.options import Options

FAST = ("trainer.duration.steps=3", "evals.test.every=null")
LINKS = {
    "student": ["method=kd", "teacher.checkpoint='{assistant}'", "teacher.net.widths=[4,4,6,6]"],
    "assistant": ["method=takd", "student.net.widths=[4,4,6,6]", "teacher.checkpoint='{big one}'"],
    "big one": ["method=supervised", "student.net.widths=[6,6,10,10]"],
    "dense": [
        "method=dgkd",
        "teacher.members={a: {checkpoint: '{big one}'}, b: {checkpoint: '{assistant}', net: {widths: [4,4,6,6]}}}",
    ],
    "again": ["method=supervised", "student.net.widths=[4,4,6,6]", "student.checkpoint='{assistant}'"],
}


def chain(**changed: Any) -> Chain:
    settings = {
        "name": "tiny_chain",
        "title": "A tiny chain",
        "overrides": [*CLASSES, *TINY, *STUDENT, *FAST],
        "seeds": [0, 1],
        "links": LINKS,
        "rows": None,
        "baseline": None,
        "columns": ["test/top1", "test/nll"],
        "protocol": "last",
    }
    return Chain(**settings | changed)


def options(**changed: Any) -> Options:
    return study_options(**{"fused_limit": 8} | changed)


def paths(folder: Path) -> dict[str, str]:
    places = {key: str(folder / key) for key in ("runs", "teachers", "memos")}
    return {"data": str(folder), "outputs": str(folder), **places}


def test_each_link_follows_those_that_it_starts_from():
    assert chain().order() == [["big one"], ["assistant"], ["student", "dense", "again"]]


def test_links_in_a_circle_and_unknown_ones_are_refused():
    with pytest.raises(UserError, match="a, b need each other"):
        chain(links={"a": ["teacher.checkpoint='{b}'"], "b": ["teacher.checkpoint='{a}'"], "c": []})
    with pytest.raises(UserError, match="study.links.a: there is no link 'bigone'"):
        chain(links={"a": ["teacher.checkpoint='{bigone}'"], "big one": []})
    with pytest.raises(UserError, match="study.rows: there is no link 'nobody'"):
        chain(rows=["nobody"])


def test_every_link_is_checked_before_the_first_runs(tmp_path):
    links = {**LINKS, "wrong": ["method=kd", "teacher.checkpoint='{assistant}'", "method.temperatur=3"]}
    with pytest.raises(ConfigError, match="wrong: unknown key 'method.temperatur'"):
        chain(links=links).execute(paths(tmp_path), options())
    assert not (tmp_path / "runs").exists()


def _until(step: int, folder: Path) -> None:
    die_at(Moment("kdx.engine.optim.update.Joint", "__call__", step + 1))
    chain(seeds=[0]).execute(paths(folder), options(overrides=["trainer.checkpoint_seconds=0"]))


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(tmp_path, capsys):
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    assert chain(seeds=[0]).execute(paths(calm), options(overrides=["trainer.checkpoint_seconds=0"])) == []
    table = (calm / "studies" / "tiny_chain" / "table.csv").read_text()
    assert [line.split(",")[0] for line in table.splitlines()[1::2]] == list(LINKS)
    # the first link is done after 3 steps, the second is in its second
    process = multiprocessing.get_context("fork").Process(target=_until, args=(4, broken))
    process.start()
    process.join(120)
    assert process.exitcode == -9
    done = {p.parent.name: p.stat().st_mtime_ns for p in (broken / "runs").glob("*/DONE")}
    assert len(done) == 1 and len(list((broken / "runs").iterdir())) == 2
    assert chain(seeds=[0]).execute(paths(broken), options(overrides=["trainer.checkpoint_seconds=0"])) == []
    for name, moment in done.items():
        assert (broken / "runs" / name / "DONE").stat().st_mtime_ns == moment
    ours, theirs = (sorted((f / "runs").iterdir()) for f in (broken, calm))
    assert [p.name for p in ours] == [p.name for p in theirs] and len(ours) == len(LINKS)
    for one, other in zip(ours, theirs, strict=True):
        # but for the place of the teachers' weights
        assert repr(outcome(one)).replace(str(broken), str(calm)) == repr(outcome(other))
    # whose weights a link learnt from
    facts = {p.name.split("-")[1]: json.loads((p / "result.json").read_text())["teacher"] for p in ours}
    assert Path(facts["kd"]["weights"]).parent.name.startswith("synthetic-takd")
    assert set(facts["dgkd"]["members"]) == {"a", "b"}
    # rendered from what there is, and nothing runs
    assert (
        chain(seeds=[0]).execute(paths(broken), options(only="render", overrides=["trainer.checkpoint_seconds=0"]))
        == []
    )
    assert "assistant" in capsys.readouterr().out


def test_a_link_that_fails_stops_only_those_that_need_it(tmp_path):
    links = {
        "good": ["method=supervised"],
        "bad": ["method=supervised", "seed=9", "optimizer.lr=1e30"],
        "taught": ["method=kd", "teacher.net.widths=[4,4,8,8]", "teacher.checkpoint='{bad}'"],
    }
    lines = chain(links=links, seeds=[0]).execute(paths(tmp_path), options())
    assert len(lines) == 2 and "bad, seed 0" in lines[0] and lines[1] == "taught, seed 0: its link bad has no result"
    assert len(list((tmp_path / "runs").glob("*/DONE"))) == 1


def test_rows_take_along_what_they_need(tmp_path):
    lines = chain(seeds=[0]).execute(paths(tmp_path), options(rows=["assistant"]))
    assert lines == [] and len(list((tmp_path / "runs").glob("*/DONE"))) == 2
