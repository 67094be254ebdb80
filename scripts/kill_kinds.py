"""The kinds of run that `kill_campaign.py` kills: a command each, of tiny networks and 40 images."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from hard_settings import (  # pyright: ignore[reportMissingImports] - in tests/support
    ADVERSARY,
    ERRORS,
    EVERYTHING,
    GENERATOR,
    PEERS,
    PREDICTIONS,
)

# 5 steps an epoch; a line, an evaluation and a checkpoint at almost every step
TINY = (
    "dataset=synthetic",
    "dataset.num_classes=5",
    "dataset.input_shape=[3,8,8]",
    "dataset.train_size=40",
    "dataset.test_size=25",
    "dataset.train_subset=10",
    "student=resnet8",
    "student.net.widths=[4,4,8,8]",
    "teacher=resnet8",
    "teacher.net.widths=[6,6,10,10]",
    "optimizer.lr=0.01",
    "trainer.duration.epochs=null",
    "trainer.duration.steps=40",
    "trainer.batch_size=8",
    "trainer.eval_batch_size=10",
    "trainer.log_steps=3",
    "trainer.checkpoint_seconds=0",
    "trainer.threads=1",
    "trainer.device=cpu",
    "logger=jsonl",
)
GIVEN = ("teacher.checkpoint=null",)  # a teacher as built, which trains nothing
OWN = ("teacher.recipe=['trainer.duration.epochs=4','trainer.batch_size=8','optimizer.lr=0.01']",)
SWEEP = ("-m", "method=kd,dkd", "method.temperature=2,4", "data_seed=0")


@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes:
        arguments: The command, without paths.
        processes: Processes that train one run together.
        workers: Whether other processes train, so that no kill can be placed inside a write.
    """

    arguments: Sequence[str]
    processes: int = 1
    workers: bool = False


def train(*own: str, teacher: Sequence[str] = GIVEN) -> Sequence[str]:
    flags = [word for word in own if word.startswith("-")]
    return ("train", *flags, *TINY, *teacher, *(word for word in own if not word.startswith("-")))


KINDS: Mapping[str, Kind] = {
    "everything": Kind(train(*EVERYTHING)),
    "adapters": Kind(train("method=fitnet", "augmentation=strong")),
    "peers dml": Kind(train(*PEERS)),
    "peers kdcl": Kind(train(*ERRORS)),
    "peers cl_ilr": Kind(train("method=cl_ilr")),
    "peers okddip": Kind(train("method=okddip")),
    "peers one": Kind(train("method=one")),
    "adversary of features": Kind(train(*ADVERSARY)),
    "adversary of logits": Kind(train("method=adv_logits")),
    "generator": Kind(train(*GENERATOR)),
    "memory bank": Kind(train("method=crd")),
    "memory of predictions": Kind(train(*PREDICTIONS)),
    "memo": Kind(train("teacher.memo=true", "augmentation.cycle=3", "trainer.batch_size=16")),
    "fused": Kind(train(*SWEEP, "hydra/launcher=fused")),
    "joblib": Kind(train(*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), workers=True),
    "teacher first": Kind(train("method=kd_at", teacher=OWN)),
    "chain in jobs": Kind(("study", "study=kills", "jobs=2"), workers=True),
    "W&B offline": Kind(train("logger=wandb")),
    "two processes": Kind(train("augmentation=mixup"), processes=2),
    "search": Kind(
        train(
            "-m",
            "hydra/sweeper=optuna",
            "hydra.sweeper.trials=3",
            "method.temperature=interval(1,8)",
            "dataset.val_fraction=0.2",
        )
    ),
}


def write_study(folder: Path) -> None:
    """Write the config of the study of the kind "chain in jobs": a teacher, its student, and the student's student."""
    lines = "\n".join(f"  - {override}" for override in (*TINY, *GIVEN))
    text = f"""\
# A chain of three runs with two seeds.
_target_: kdx.studies.chain.Chain
name: kills
title: Runs that are killed
overrides:
{lines}
seeds: [0, 1]
links:
  first: [method=supervised]
  second: [method=kd, "teacher.checkpoint='{{first}}'", "teacher.net.widths=[4,4,8,8]"]
  third: [method=kd, "teacher.checkpoint='{{second}}'", "teacher.net.widths=[4,4,8,8]"]
rows: null
baseline: null
columns: [test/top1]
protocol: last
"""
    (folder / "study").mkdir(parents=True, exist_ok=True)
    (folder / "study" / "kills.yaml").write_text(text)
