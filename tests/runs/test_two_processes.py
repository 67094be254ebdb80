"""Two processes with half of each batch against one process with all of it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MASKED, PHRASES, STUDENT
from crowd import trained_by
from safetensors.torch import load_file
from traces import outcome, record

from kdx.config.compose import ConfigError
from kdx.config.schema import RunConfig
from kdx.runs.checks.dry_run import rehearse
from kdx.runs.run import name, run

# every number of the record within 2e-5, or 2e-5 of itself: sums of float32 in another order are 2e-6 apart here
# every batch of 7 is shared as 4 and 3, the last of 5 as 3 and 2
ODD = ("trainer.batch_size=7", "trainer.log_steps=1", "dataset.val_fraction=0.2", "evals.val.every=0.5")
GATE = [f"+update.gradient.{key}" for key in ("_target_=own_gradients.Gate", "labels=ce", "teacher=kd")]
VARIATE = [f"+update.gradient.{key}" for key in ("_target_=own_gradients.ControlVariate", "period=2")]
SCENES = {
    # batch norms of student and adapter, whose statistics are of the whole batch; an average of the weights
    "kd": ("method=kd", "trainer.ema=0.8", *ODD),
    "an adapter": ("method=fitnet", "update.clip_norm=0.5", *ODD),
    # what a user's own gradient sees of a term is the gradient of the whole batch
    "a gate on two gradients": ("method=kd", *GATE, *ODD),
}
MORE = {
    "in parts": ("method=kd", "update.accumulate=2", "student=mlp_400", "student.net.dropout=0", *ODD),
    "a second gradient": ("method=kd", *VARIATE, *ODD),
    "mixed": ("method=kd", "augmentation=mixup_cutmix", *ODD),
    "folded statistics": ("method=reviewkd", *ODD),
    "peers": ("method=dml", "method.peers=[same,same]", "update=peers", "optimizer=adamw", *ODD),
    "turns": ("method=dml", "method.peers=[same]", "update=turns", *ODD),
    "an adversary": ("method=adv_logits", *ODD),
    # second derivatives through statistics of the whole batch
    "input gradients": ("method=at_grad", *ODD),
    "Jacobians": ("method=sobolev", "method.derivative=full", *ODD),
    "an attack": ("method=ard", "method.attack.start=centre", "method.attack.steps=2", *ODD),
    "exits": ("method=byot", *ODD),
    "a memo": ("teacher.memo=true", "teacher.memo_dtype=fp32", "trainer.batch_size=33", "augmentation=standard"),
    "half precision": ("method=kd", "trainer.precision=bf16", *ODD),
}
# what rounding to 8 bits makes of another order of sums is no law; of statistics that come from a covariance it made
# 3.5e-5 after seven steps on one processor
STRAYS = {"half precision": 0.05, "folded statistics": 5e-5}

# one reads features, one the teacher's classifier
SHARDED = {
    "a teacher in shards": ("method=fitnet", *ODD),
    "its classifier": ("method=simkd", *ODD),
}


def halves(rank: int) -> None:
    """Hold each process to its half of a teacher that is in shards."""
    from kdx.models.teachers import sharded
    from kdx.runs import run

    def checked(net, device):
        sizes = {name: p.numel() for name, p in net.named_parameters() if not name.startswith(("head", "fc"))}
        sharded.shard(net, device)
        own = sum(p.to_local().numel() for name, p in net.named_parameters() if name in sizes)
        assert own <= 0.6 * sum(sizes.values()), (own, sum(sizes.values()))

    run.shard = checked


def folder_of(config: RunConfig) -> Path:
    return Path(config.paths.runs) / name(config)


def of(tiny, overrides: tuple[str, ...]) -> RunConfig:
    return tiny(*overrides, student=() if any(o.startswith("student=") for o in overrides) else STUDENT)


def moved(config: RunConfig, to: Path) -> RunConfig:
    """The same run somewhere else, with the same teacher."""
    return replace(config, paths=replace(config.paths, runs=str(to)))


def assert_same(config: RunConfig, elsewhere: RunConfig, tolerance: float) -> None:
    """Every number of every line, and the weights, are those of one process but for the order of sums."""
    ours, theirs = record(folder_of(config)), record(folder_of(elsewhere))
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=tolerance, abs=tolerance), (config.choices["method"], mine["step"])
    files = [folder_of(c) / "predictions.safetensors" for c in (config, elsewhere)]
    hidden = config.choices["method"] == "distilbert"  # predicted tokens are not kept
    assert [file.exists() for file in files] == [not hidden] * 2
    kept, there = ({}, {}) if hidden else map(load_file, files)
    assert kept.keys() == there.keys()
    assert hidden or kept["label"].equal(there["label"])
    for confidence in (key for key in kept if key.endswith("/confidence")):
        assert kept[confidence].tolist() == pytest.approx(there[confidence].tolist(), abs=tolerance)
    assert json.loads((folder_of(elsewhere) / "result.json").read_text())["processes"] == 2


def check(tiny, tmp_path: Path, scenes: dict[str, tuple[str, ...]]) -> None:
    compare({scene: of(tiny, overrides) for scene, overrides in scenes.items()}, tmp_path)


def compare(configs: dict[str, RunConfig], tmp_path: Path) -> None:
    """Train each config in one process and in two, and compare all that they leave."""
    for config in configs.values():
        run(config)
    there = {scene: moved(config, tmp_path / "two") for scene, config in configs.items()}
    for scene in SHARDED.keys() & there.keys():
        there[scene] = replace(there[scene], teacher=replace(there[scene].teacher, shard=True))
    assert trained_by(2, list(there.values()), halves) == [0, 0]
    if (gated := configs.get("a gate on two gradients")) is not None:
        opposed = [line["train/opposed"] for line in record(folder_of(gated)) if "train/opposed" in line]
        assert {0.0, 1.0} == set(opposed), "the gate must open and close"
    for scene, config in configs.items():
        assert_same(config, there[scene], STRAYS.get(scene, 2e-5))


def test_two_processes_leave_the_trace_of_one(tiny, tmp_path: Path):
    check(tiny, tmp_path, SCENES)


@pytest.mark.slow
def test_a_teacher_in_shards_teaches_the_same(tiny, tmp_path: Path):
    check(tiny, tmp_path, SHARDED)


@pytest.mark.slow
def test_two_processes_leave_the_trace_of_one_with_other_methods(tiny, tmp_path: Path):
    check(tiny, tmp_path, MORE)


# without dropout, whose streams differ between processes, and in full precision
EXACT = ("student.net.dropout=0", "trainer.precision=fp32", "teacher.checkpoint=null", *ODD)
WITH_CLASSES = ("student.net.head_dropout=0", *EXACT)
TEXTS = {
    # batches by length: the two shares of a batch have as many columns, and other numbers of tokens
    "targets of a teacher": (PHRASES, ("method=distilbert_task", *WITH_CLASSES)),
    "means over tokens": (PHRASES, ("method=tinybert_intermediate", *WITH_CLASSES)),
    "relations of tokens": (PHRASES, ("method=minilm", *WITH_CLASSES)),
    "hidden tokens": (MASKED, ("method=distilbert", *EXACT)),
}


@pytest.mark.slow
def test_two_processes_leave_the_trace_of_one_on_texts(tiny, tmp_path: Path):
    pytest.importorskip("transformers")
    compare({scene: tiny(*overrides, data=data) for scene, (data, overrides) in TEXTS.items()}, tmp_path)


def dies(rank: int) -> None:
    """The second process dies in its sixth step, after checkpoints."""
    from kdx.engine.optim.update import Joint

    take, seen = Joint.__call__, []

    def fatal(*given):
        seen.append(1)
        if rank == 1 and len(seen) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(*given)

    Joint.__call__ = fatal


def breaks(rank: int) -> None:
    """The second process is_sharded a mistake in its third step."""
    from kdx.engine.optim.update import Joint

    take, seen = Joint.__call__, []

    def broken(*given):
        seen.append(1)
        if rank == 1 and len(seen) == 3:
            raise RuntimeError("the disk is made of cheese")
        return take(*given)

    Joint.__call__ = broken


@pytest.mark.slow
def test_killed_and_resumed_they_end_with_the_same_bits(tiny, tmp_path: Path):
    # dropout draws from a stream of each process
    net = ("student=mlp_400", "student.net.hidden=[12]", "trainer.checkpoint_seconds=0", "trainer.log_steps=1")
    config = of(tiny, ("method=kd", *net))
    undisturbed, disturbed = moved(config, tmp_path / "a"), moved(config, tmp_path / "b")
    assert trained_by(2, [undisturbed]) == [0, 0]
    codes = trained_by(2, [disturbed], dies)
    assert codes[1] == -signal.SIGKILL and codes[0] != 0
    assert (folder_of(disturbed) / "checkpoints" / "last.pt").exists()
    assert trained_by(1, [disturbed]) != [0]  # another number of processes draws other numbers
    assert "started with 2 processes" in (folder_of(disturbed) / "error.txt").read_text()
    assert trained_by(2, [disturbed]) == [0, 0]
    assert outcome(folder_of(disturbed)) == outcome(folder_of(undisturbed))


@pytest.mark.slow
def test_one_that_fails_ends_all_and_says_why(tiny):
    config = tiny("method=supervised")
    assert 0 not in trained_by(2, [config], breaks)
    said = (folder_of(config) / "error.txt").read_text()
    assert "the disk is made of cheese" in said and "peer" not in said
    assert not (folder_of(config) / "DONE").exists()


@pytest.mark.slow
def test_torchrun_trains_and_tells_in_one_line(tmp_path: Path):
    options = (
        "dataset=synthetic",
        "dataset.input_shape=[3,8,8]",
        "dataset.train_size=40",
        "student=resnet8",
        "student.net.widths=[4,4,8,8]",
        "trainer.duration.epochs=null",
        "trainer.duration.steps=4",
        "trainer.device=cpu",
        "logger=jsonl",
    )

    def torchrun(*more: str) -> subprocess.CompletedProcess[str]:
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "kdx.train"]
        return subprocess.run(
            [sys.executable, "-m", *launcher, *options, *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    told = torchrun("method=supervised")
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("top-1 %") == 1
    assert len(list((tmp_path / "outputs/runs").glob("*/DONE"))) == 1
    for wrong in (["trainer.batch_size=1"], ["-m", "seed=0,1"]):
        told = torchrun("method=supervised", *wrong)
        assert told.returncode != 0
        assert len([line for line in told.stderr.splitlines() if line.startswith("kdx: ")]) == 1, told.stderr


REFUSED = [
    (("method=rkd",), "RKDDistance relates the examples"),
    (("method=kd", "transfer=noise", "transfer.labelled_share=0.5"), "would weight labelled examples differently"),
]
MORE_REFUSED = [
    (("method=pskd",), "PastPredictions relates the examples"),
    (("method=crd",), "CRD relates the examples"),
    (("method=bss",), "BoundarySamples relates the examples"),
    (("method=kd", "teacher.optimize=int8"), "takes its ranges from whole batches"),
]


@pytest.mark.parametrize(
    ("overrides", "sentence"), [*REFUSED, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_REFUSED)]
)
def test_refuses_in_a_sentence_what_needs_the_whole_batch(tiny, monkeypatch, overrides, sentence):
    config = tiny(*overrides)  # which one process trains
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("kdx.runs.checks.dry_run._passed", set())
    with pytest.raises(ConfigError, match=sentence):
        rehearse(config)


RESTARTED = """
import os, signal
from kdx.engine.optim.update import Joint
from kdx.train import main

take, seen = Joint.__call__, []

def fatal(*given):
    seen.append(1)
    if len(seen) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return take(*given)

if __name__ == "__main__":
    if os.environ["TORCHELASTIC_RESTART_COUNT"] in ("0", "1") and os.environ["RANK"] == os.environ["KILLED"]:
        Joint.__call__ = fatal
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["0", "1"])
def test_torchrun_restarts_a_killed_rank(tmp_path: Path, killed: str):
    (tmp_path / "restarted.py").write_text(RESTARTED)
    options = ["dataset=synthetic", "dataset.input_shape=[3,8,8]", "dataset.train_size=40", "method=supervised"]
    options += ["student=resnet8", "student.net.widths=[4,4,8,8]", "trainer.duration.epochs=null", "logger=jsonl"]
    options += ["trainer.duration.steps=16", "trainer.checkpoint_seconds=0", "trainer.device=cpu"]
    found = []
    for number in (killed, "none"):
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3", "restarted.py"]
        told = subprocess.run(
            [sys.executable, "-m", *launcher, *options, f"paths.outputs={number}"],
            cwd=tmp_path,
            env={**os.environ, "KILLED": number},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert told.returncode == 0, told.stderr
        (folder,) = (tmp_path / number / "runs").iterdir()
        found.append(outcome(folder))
    assert found[0] == found[1]
