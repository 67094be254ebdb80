"""Runs over shards: killed and resumed against undisturbed, workers against none."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from deaths import Moment, kill_at
from PIL import Image
from traces import outcome

from kdx.config.compose import compose
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.runs.prepare import prepare
from kdx.runs.run import run

OVERRIDES = (
    "dataset=shards",
    "dataset.folder=tiny",
    "dataset.num_classes=3",
    "dataset.input_shape=[3,16,16]",
    "dataset.resize=20",
    "dataset.at_once=2",
    "dataset.val_fraction=0.2",
    "method=supervised",
    "student=resnet8",
    "student.net.widths=[4,4,8,8]",
    "trainer.duration.epochs=null",
    "trainer.duration.steps=8",
    "trainer.batch_size=8",
    "trainer.eval_batch_size=10",
    "trainer.threads=1",
    "trainer.device=cpu",
    "trainer.checkpoint_seconds=0",
    "logger=jsonl",
)


@pytest.fixture
def config(tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "tiny").mkdir()
    for shard, size in (("train-0", 11), ("train-1", 9), ("train-2", 10), ("val-0", 13)):
        with tarfile.open(tmp_path / "tiny" / f"{shard}.tar", "w") as tar:
            for i in range(size):
                image = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(image, "JPEG")
                for part, content in (("jpg", image.getvalue()), ("cls", b"%d" % (i % 3))):
                    member = tarfile.TarInfo(f"{i}.{part}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))

    def make(outputs: str, *overrides: str) -> RunConfig:
        places = (f"dataset.root={tmp_path}", f"paths.outputs={tmp_path / outputs}")
        return prepare(compose([*OVERRIDES, *places, *overrides]))

    return make


@pytest.mark.slow
def test_killed_and_resumed_is_the_run_that_nobody_disturbed(config):
    expected = outcome(run(config("alone", "trainer.num_workers=0")).folder)
    disturbed = config("killed", "trainer.num_workers=0")  # workers of a process that dies like this would stay
    for call in (3, 3):  # in the first epoch, in the second
        assert kill_at(disturbed, Moment("kdx.engine.checkpoint.Checkpoints", "save", call)) == -9
    assert outcome(run(config("killed", "trainer.num_workers=2")).folder) == expected


def test_a_memo_of_endless_views_is_refused_as_for_files(config):
    memo = ("method=kd", "teacher=resnet8", "teacher.memo=true", "trainer.batch_size=16")
    config("refused", *memo)  # crop and flip have 162
    with pytest.raises(UserError, match="teacher.memo"):
        config("refused", *memo, "augmentation=resized_crop")
