"""The kinds of run that `kill_campaign.py` kills: a command each, of tiny networks and 40 images."""

import shutil
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
    OPEN_SCENES,
    PEERS,
    PREDICTIONS,
)
from small_tokens import tokenizer_folder  # pyright: ignore[reportMissingImports]

# a line, an evaluation and a checkpoint at almost every step
BRIEF = (
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
FEW = ("dataset.train_size=40", "dataset.test_size=25", "dataset.train_subset=10")  # 5 steps an epoch
TINY = (
    "dataset=synthetic",
    "dataset.num_classes=5",
    "dataset.input_shape=[3,8,8]",
    "student=resnet8",
    "student.net.widths=[4,4,8,8]",
    "teacher=resnet8",
    "teacher.net.widths=[6,6,10,10]",
    "optimizer.lr=0.01",
    *FEW,
    *BRIEF,
)
ENCODER = ("hidden_size=8", "num_attention_heads=2", "intermediate_size=8", "max_position_embeddings=32")
TEXTS = (  # the tokenizer is written by `write_inputs` into the folder that commands run below
    "dataset=phrases",
    "student=transformers",
    "teacher=transformers",
    *(f"+{role}.net.options.{size}" for role in ("student", "teacher") for size in (*ENCODER, "num_hidden_layers=2")),
    *(f"dataset.{key}=${{oc.env:KDX_KILLS}}/tokenizer" for key in ("tokenizer", "index")),
    *FEW,
    *BRIEF,
)
DETECTOR = ("widths=[4,4,6,6]", "channels=4", "width=8", "resolution=2", "anchor_sizes=[[8],[14]]")
REGIONS = ("rpn_batch=8", "pre_nms=20", "post_nms=6", "region_batch=6")
BOXES = (
    "dataset=scenes",
    "dataset.input_shape=[3,32,32]",
    "dataset.sizes=[0.25,0.5]",
    *(f"{role}.net.{size}" for role in ("student", "teacher") for size in (*DETECTOR, "levels=[2,3]")),
    *(f"{role}.net.sampling.{size}" for role in ("student", "teacher") for size in REGIONS),
    *FEW,
    *BRIEF,
)
OPEN = (
    *OPEN_SCENES,
    *(f"student.net.{size}" for size in DETECTOR),
    *(f"student.net.sampling.{size}" for size in REGIONS),
    *BRIEF,
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


def train(*own: str, teacher: Sequence[str] = GIVEN, data: Sequence[str] = TINY) -> Sequence[str]:
    flags = [word for word in own if word.startswith("-")]
    return ("train", *flags, *data, *teacher, *(word for word in own if not word.startswith("-")))


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
    "texts": Kind(train("method=minilm", data=TEXTS)),
    "detectors": Kind(train("method=detect_kd", data=BOXES)),
    "open vocabulary": Kind(train("method=ovd_rkd_pis", teacher=(), data=OPEN)),
    "a distiller as data": Kind(train("method=kdzero")),
}


def write_inputs(place: Path) -> None:
    """Write the files that kinds read: the study of the kind "chain in jobs", and the tokenizer of the kind "texts"."""
    shutil.copytree(tokenizer_folder(), place / "tokenizer", dirs_exist_ok=True)
    _write_study(place / "configs")


def _write_study(folder: Path) -> None:
    """A teacher, its student, and the student's student."""
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
