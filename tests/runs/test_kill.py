"""Runs that are killed at the worst moments and started again, against runs that nobody disturbed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from deaths import Moment, kill_at
from hard_settings import ADVERSARY, ERRORS, EVERYTHING, GENERATOR, PEERS, PREDICTIONS
from traces import logged, outcome, record

from kdx.config.schema import RunConfig
from kdx.runs.run import name, run

CHECKPOINTS = "kdx.engine.checkpoint.Checkpoints"
RUN = "kdx.runs.run"
DELIVER = "kdx.runs.export"
DROPOUT = ("student=mlp_400", "student.net.hidden=[12,12]")
ALWAYS = "trainer.checkpoint_seconds=0"
ADAPTERS = (
    "method=fitnet",
    "method.terms.hint.teacher_role=pooled",
    "augmentation=strong",
    ALWAYS,
)
# networks that step in turns, each with an optimiser of its own
TURNS = {
    "peers": (*PEERS, ALWAYS),
    "an adversary": (*ADVERSARY, ALWAYS),
    "a generator": (*GENERATOR, ALWAYS),
}
# what a method remembers of the steps before, and batches of two parts
MEMORIES = {
    "labelled and unlabelled": (
        "transfer=noise",
        "transfer.labelled_share=0.3",
        "augmentation=mixup",
        ALWAYS,
    ),
    "a specialist": (
        "method=supervised",
        "transfer=specialist",
        "transfer.special_classes=[3,1]",
        "augmentation=mixup",
        ALWAYS,
    ),
    "predictions": (*PREDICTIONS, ALWAYS),
    "errors": (*ERRORS, ALWAYS),
}

# a line, an evaluation and a checkpoint at each of 8 steps, so that the best epoch may lie before a death
MOMENTS = {
    "before anything is trained": Moment(RUN, "build_loaders"),
    "in the first step": Moment("kdx.engine.optim.update.Joint", "__call__", 1),
    "before the first checkpoint": Moment(CHECKPOINTS, "save", 1),
    "between two checkpoints": Moment("kdx.engine.optim.update.Joint", "__call__", 6),
    "before a line of the record": Moment("kdx.engine.record.log.Log", "write", 3),
    "after a line, before its checkpoint": Moment(CHECKPOINTS, "save", 6),
    "half-way through a checkpoint": Moment("torch", "save", 4, half=True),
    "half-way through the first checkpoint": Moment("torch", "save", 1, half=True),
    "before a checkpoint is put aside": Moment("os", "replace", 3, "previous.pt"),
    "before a checkpoint is in place": Moment("os", "replace", 5, ".last.pt."),
    "at the export of the selected student": Moment(DELIVER, "save_weights", 1, "student_val"),
    "in an evaluation": Moment("kdx.evals.task_metrics.TaskMetrics", "measure", 3),
    "before the last checkpoint": Moment(CHECKPOINTS, "save", 8),
    "before the export": Moment(DELIVER, "save_weights", 1, "student.safetensors"),
    "before the result": Moment(DELIVER, "write_json"),
    "in the result": Moment("os", "replace", 1, "result.json"),
    "before the mark of the end": Moment("os", "replace", 1, "DONE"),
    "after the mark of the end": Moment(CHECKPOINTS, "clear"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> dict:
    """The folder of the teachers, and what undisturbed runs left."""
    return {"teachers": str(tmp_path_factory.mktemp("teachers")), "calm": {}}


@pytest.fixture
def start(tiny, shared, tmp_path):
    """A config whose teacher others share, and what its undisturbed run leaves."""

    def make(overrides: tuple[str, ...]) -> tuple[dict, dict]:
        config = tiny(*overrides, student=DROPOUT)
        if config.teacher is not None:
            training = config.teacher.training
            training = replace(training, paths=replace(training.paths, teachers=shared["teachers"]))
            config = replace(config, teacher=replace(config.teacher, training=training))
        if overrides not in shared["calm"]:
            calm = replace(config, paths=replace(config.paths, runs=str(tmp_path / "calm")))
            shared["calm"][overrides] = outcome(run(calm).folder)
        return config, shared["calm"][overrides]

    return make


def folder_of(config: RunConfig) -> Path:
    return Path(config.paths.runs) / name(config)


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_killed_and_resumed_is_undisturbed(start, moment: Moment):
    config, calm = start((*EVERYTHING, ALWAYS))
    assert kill_at(config, moment) == -9
    result = run(config)
    assert outcome(result.folder) == calm
    if moment.function != "clear":  # killed once it was done, it is not touched again
        assert not list((result.folder / "checkpoints").iterdir())
    assert not list(result.folder.rglob("*.part")) or moment.function in ("replace", "clear")


@pytest.mark.parametrize("moment", ["after a line, before its checkpoint", "before a checkpoint is in place"])
def test_adapters_resume_too(start, moment: str):
    config, calm = start(ADAPTERS)
    assert kill_at(config, MOMENTS[moment]) == -9
    assert outcome(run(config).folder) == calm


@pytest.mark.parametrize("overrides", [*TURNS.values(), *MEMORIES.values()], ids=[*TURNS, *MEMORIES])
def test_turns_and_memories_resume_too(start, overrides: tuple[str, ...]):
    config, calm = start(overrides)
    assert kill_at(config, Moment(CHECKPOINTS, "save", 6)) == -9
    assert outcome(run(config).folder) == calm


def test_killed_again_and_again(start):
    config, calm = start((*EVERYTHING, ALWAYS))
    deaths = 0
    while kill_at(config, Moment(CHECKPOINTS, "save", 3, "")) == -9:
        deaths += 1
        assert deaths < 8
    assert deaths == 3  # two steps at each start, and the rest
    assert outcome(run(config).folder) == calm


def test_killed_while_the_teacher_trains(tiny, start, shared):
    _, calm = start((*EVERYTHING, ALWAYS))
    alone = tiny(*EVERYTHING, ALWAYS, student=DROPOUT)
    assert kill_at(alone, Moment(CHECKPOINTS, "save", 3)) == -9
    assert not (folder_of(alone) / "metrics.jsonl").exists()
    (teacher,) = Path(alone.paths.teachers).iterdir()
    assert not (teacher / "DONE").exists()
    assert outcome(run(alone).folder) == calm
    assert outcome(teacher) == outcome(Path(shared["teachers"]) / teacher.name)


def test_a_damaged_checkpoint_falls_back_on_the_one_before(start):
    config, calm = start((*EVERYTHING, ALWAYS))
    assert kill_at(config, MOMENTS["after a line, before its checkpoint"]) == -9
    last = folder_of(config) / "checkpoints" / "last.pt"
    os.truncate(last, last.stat().st_size // 2)
    assert outcome(run(config).folder) == calm


def test_half_a_file_beside_no_checkpoint_is_a_start(start):
    config, calm = start((*EVERYTHING, ALWAYS))
    checkpoints = folder_of(config) / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / ".last.pt.").write_bytes(b"PK half a file")
    assert outcome(run(config).folder) == calm


def test_a_view_of_a_killed_run_holds_every_line_once(tiny):
    config = tiny("method=supervised", "logger=wandb", "trainer.checkpoint_seconds=0")
    assert kill_at(config, Moment(CHECKPOINTS, "save", 6)) == -9
    folder = run(config).folder
    shown = [{key: value for key, value in line.items() if not key.startswith("time/")} for line in logged(folder)]
    assert shown == record(folder) and [line["step"] for line in shown] == [3, 5, 6, 8]
