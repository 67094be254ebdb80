"""The study of a generalist and specialists: its links, and what a death in the middle leaves."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from conftest import CLASSES, STUDENT, TINY
from deaths import Moment, die_at
from study_options import study_options
from traces import outcome

from kdx.studies.clusters import Clustering
from kdx.studies.options import Options
from kdx.studies.specialists import Specialists

STUDY = Specialists(
    name="tiny_specialists",
    title="Tiny specialists",
    overrides=[
        *CLASSES,
        *TINY,
        *STUDENT,
        "teacher.net.widths=[4,4,8,8]",
        "trainer.duration.steps=3",
        "evals.test.every=null",
    ],
    seeds=[0],
    clustering=Clustering(split="train", examples=None, clusters=2, components=None, seed=0, restarts=3, steps=20),
    generalist=["method=supervised"],
    specialist=["method=supervised", "transfer.special_share=0.4"],
    student=["method=kd", "student.net.widths=[6,6,10,10]"],
    agreement=["teacher.combine=specialists", "teacher.agreement.top=2"],
)


def options(**changed: Any) -> Options:
    return study_options(**{"fused_limit": 8, "overrides": ["trainer.checkpoint_seconds=0"]} | changed)


def execute(folder: Path, **changed: Any) -> list[str]:
    places = {key: str(folder / key) for key in ("runs", "teachers", "memos")}
    return STUDY.execute({"data": str(folder), "outputs": str(folder), **places}, options(**changed))


def _until(step: int, folder: Path) -> None:
    die_at(Moment("kdx.engine.optim.update.Joint", "__call__", step + 1))
    execute(folder)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(tmp_path, capsys):
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    assert execute(broken, only="render") == ["no seed is complete"] and not (broken / "runs").exists()
    assert execute(calm) == []
    table = (calm / "studies" / "tiny_specialists" / "table.csv").read_text()
    process = multiprocessing.get_context("fork").Process(target=_until, args=(7, broken))  # in the third run
    process.start()
    process.join(120)
    assert process.exitcode == -9 and len(list((broken / "runs").glob("*/DONE"))) == 2
    assert execute(broken) == []
    assert (broken / "studies" / "tiny_specialists" / "table.csv").read_text() == table
    ours, theirs = (sorted((f / "runs").iterdir()) for f in (broken, calm))
    assert [p.name for p in ours] == [p.name for p in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert repr(outcome(one)).replace(str(broken), str(calm)) == repr(outcome(other))
    # every specialist is a member, with its classes and the shares of its own training set
    taught = [json.loads((p / "result.json").read_text()) for p in ours]
    facts = [r["teacher"] for r in taught if r["teacher"] is not None]
    assert sorted(len(f.get("members", [])) for f in facts) in ([0, 2], [0, 3])
    text = (broken / "studies" / "tiny_specialists" / "table.md").read_text()
    moments = [p.stat().st_mtime_ns for p in sorted(broken.glob("runs/*/DONE"))]
    assert execute(broken, only="render") == []
    assert (broken / "studies" / "tiny_specialists" / "table.md").read_text() == text
    assert [p.stat().st_mtime_ns for p in sorted(broken.glob("runs/*/DONE"))] == moments
