"""Open-vocabulary runs: two processes against one, and a chain whose second link is killed and started again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import OPEN, WITHOUT_IMAGES
from crowd import trained_by
from deaths import Moment, kill_at
from safetensors.torch import load_file
from traces import outcome, record

from kdx.config.compose import ConfigError
from kdx.config.schema import RunConfig
from kdx.runs.checks.dry_run import rehearse
from kdx.runs.run import name, run

STEPS = ("trainer.batch_size=7", "trainer.log_steps=1")
# relations of all proposals of a batch need the whole batch
ALONE = ("~method.terms.irm", "~method.weights.irm")
SCENES = {
    "boxes": (WITHOUT_IMAGES, ("method=ovd_base", *STEPS)),
    "embeddings and pseudo boxes in turn, transferred": (
        OPEN,
        ("method=ovd_rkd_pis", *ALONE, "student.net.weight_transfer=true", *STEPS),
    ),
}


def folder(config: RunConfig) -> Path:
    return Path(config.paths.runs) / name(config)


def elsewhere(config: RunConfig, place: Path) -> RunConfig:
    return replace(config, paths=replace(config.paths, runs=str(place)))


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_two_processes_leave_the_trace_of_one(tiny, tmp_path: Path, scene: str):
    data, overrides = SCENES[scene]
    config = tiny(*overrides, data=data)
    run(config)
    there = elsewhere(config, tmp_path / "two")
    assert trained_by(2, [there], None) == [0, 0]
    ours, theirs = record(folder(config)), record(folder(there))
    assert len(ours) == len(theirs) > 3
    for mine, other in zip(ours, theirs, strict=True):
        terms = [key for key in mine if key.startswith("train/")]
        assert {key: mine[key] for key in terms} == pytest.approx(
            {key: other[key] for key in terms}, rel=1e-3, abs=1e-4
        )
    a, b = (load_file(folder(c) / "student.safetensors") for c in (config, there))
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 5], ids=["in a batch of images", "in a batch of boxes"])
def test_a_chain_killed_in_its_second_link_ends_with_the_same_bits(tiny, tmp_path: Path, step: int):
    first = run(tiny("method=ovd_base", data=WITHOUT_IMAGES))
    link = ("method=ovd_rkd_pis", "student.net.weight_transfer=true", f"student.checkpoint='{first.folder}'")
    config = tiny(*link, "trainer.checkpoint_seconds=0", data=OPEN)
    calm = run(elsewhere(config, tmp_path / "calm"))
    moment = Moment("kdx.engine.optim.update.Joint", "__call__", step)
    assert kill_at(config, moment) == -9
    assert not (folder(config) / "DONE").exists() and (folder(config) / "checkpoints" / "last.pt").exists()
    # the chain is started again: the first link is there, the second continues
    assert run(tiny("method=ovd_base", data=WITHOUT_IMAGES)).folder == first.folder
    assert outcome(run(config).folder) == outcome(calm.folder)


def test_relations_of_a_whole_batch_are_refused_in_two_processes(tiny, monkeypatch):
    config = tiny("method=ovd_rkd", data=WITHOUT_IMAGES)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("kdx.runs.checks.dry_run._passed", set())
    with pytest.raises(ConfigError, match="method=ovd_rkd in 2 processes: EmbeddingRelations relates"):
        rehearse(config)
