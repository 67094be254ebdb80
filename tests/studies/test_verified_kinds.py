"""A table of each kind of study is verified from its manifest: every run again has the same bits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import test_data_free
import test_paper_table
import test_specialists_study
from study_options import study_options
from test_verification import BASE, asked, grid, paths

from kdx.studies.chain import Chain
from kdx.studies.clusters import Clusters
from kdx.studies.measures.predictions import Predictions
from kdx.studies.networks import Networks
from kdx.studies.study import Study
from kdx.studies.verification import repeat
from kdx.tables.manifest import read_manifest

ALONE = [o for o in BASE if not o.startswith("teacher")]
FROM = ["method=kd", "teacher=resnet8", "teacher.net.widths=[4,4,8,8]", "teacher.checkpoint='{teacher}'"]


def chain(_: Path) -> Study:
    shape = {"title": "T", "rows": ["KD"], "baseline": None, "columns": ["test/top1"], "protocol": "last"}
    links = {"teacher": ["method=supervised"], "KD": FROM}
    return Chain(name="links", overrides=ALONE, seeds=[0], links=links, **shape)


def networks(_: Path) -> Study:
    nets = {"teacher": ["method=supervised"], "KD": FROM}
    return Networks(
        name="nets", title="N", overrides=ALONE, seeds=[0], networks=nets, split="test", measure=Predictions()
    )


def clusters(_: Path) -> Study:
    own = {"split": "test", "examples": None, "clusters": 2, "components": None, "seed": 0, "restarts": 2, "steps": 9}
    return Clusters(name="sets", title="C", overrides=[*ALONE, "method=supervised"], **own)


KINDS: dict[str, tuple[Callable[[Path], Study], str, int]] = {
    "grid": (lambda _: grid(rows={"KD": ["method=kd"]}, teacher_row=True), "studies/tiny/table", 2),
    "chain": (chain, "studies/links/table", 2),
    "networks": (networks, "studies/nets/table", 2),
    "clusters": (clusters, "studies/sets/clusters", 1),
    "specialists": (lambda _: test_specialists_study.STUDY, "studies/tiny_specialists/table", 5),
    "data free": (test_data_free.study, "studies/free/table", 2),
    "paper": (lambda _: test_paper_table.table(), "tables/paper/tiny/smoke", 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_run_of_a_table_is_trained_again_to_the_same_bits(kind: str, tmp_path: Path):
    study, table, least = KINDS[kind]
    first, second = tmp_path / "first", tmp_path / "second"
    options = study_options(fused_limit=8, scale="smoke" if kind == "paper" else None)
    assert study(first).execute(paths(first), options) == []
    path = first / f"{table}.manifest.json"
    manifest = read_manifest(path)
    assert len(manifest.runs) >= least and str(tmp_path) not in path.read_text()
    outcomes = repeat(manifest, manifest.runs, paths(second), asked(path, files=str(first)))
    assert {of.run.label: of.verdict for of in outcomes} == {run.label: "same bits" for run in manifest.runs}
    assert (second / "runs").is_dir()
