"""Runs that train together against the same runs alone: to the bit, whatever happens to one of them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import STUDENT
from deaths import Moment, kill_at
from traces import outcome

from kdx.config.schema import RunConfig
from kdx.data.loaders import TrainLoader
from kdx.engine.record.meter import NonFiniteError
from kdx.models.cifar.resnet import ResNet
from kdx.models.teachers.frozen import Frozen
from kdx.pool.pool import make_teams, run_all
from kdx.pool.run_fused import run_together
from kdx.pool.task import Task
from kdx.runs.export import folder_of
from kdx.runs.fused import shared
from kdx.runs.lock import LockedError, locked
from kdx.runs.run import run

# streams of its own (dropout), the global one (CRD's negatives), further parameters, an average, two kinds of moments
MEMBERS = {
    "kd": ("method=kd", "seed=1"),
    "hotter": ("method=kd", "method.temperature=8", "trainer.log_steps=1"),
    "adapters": ("method=fitnet", "method.terms.hint.teacher_role=pooled", "method.terms.hint.student_role=pooled"),
    "drawing": ("method=crd", "method.terms.crd.negatives=8", "optimizer=adamw"),
    "averaged": ("method=dkd", "trainer.ema=0.8", "evals.test.every=0.25"),
    "inputs": ("method=jacobian",),
    "longer": ("method=kd", "trainer.duration.steps=12", "trainer.precision=bf16"),
}
DROPOUT = ("student=mlp_400", "student.net.hidden=[12,12]")
CALM = ("data_seed=3", "augmentation=standard")
MIXED = ("data_seed=3", "augmentation=mixup", "dataset.val_fraction=0.2", "trainer.checkpoint_seconds=0")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("teachers"))


@pytest.fixture
def member(tiny, teachers):
    def config(*overrides: str, student: tuple[str, ...] = STUDENT) -> RunConfig:
        made = tiny(*overrides, student=student)
        training = made.teacher.training
        training = replace(training, paths=replace(training.paths, teachers=teachers))
        paths = replace(made.paths, teachers=teachers)
        return replace(made, teacher=replace(made.teacher, training=training), paths=paths)

    return config


@pytest.fixture
def alone(tmp_path):
    """The outcome of the same run, trained alone in another folder."""

    def train(config: RunConfig) -> dict:
        paths = replace(config.paths, runs=str(tmp_path / "alone"))
        return outcome(run(replace(config, paths=paths)).folder)

    return train


def together(configs: list[dict]) -> dict[int, Any]:
    return dict(run_together(configs))


@pytest.mark.parametrize("common", [pytest.param(CALM, marks=pytest.mark.slow), MIXED], ids=["augmented", "mixed"])
def test_each_is_the_run_alone_to_the_bit(member, alone, common):
    configs = [member(*common, *own) for own in MEMBERS.values()]
    configs.append(member(*common, "method=kd", student=DROPOUT))
    assert len({shared(c) for c in configs}) == 1 and len({folder_of(c) for c in configs}) == len(configs)
    results = together(configs)
    assert sorted(results) == list(range(len(configs)))
    for place, config in enumerate(configs):
        left = outcome(results[place].folder)
        assert left.pop("fused") == len(configs)
        expected = alone(config)
        assert expected.pop("fused") == 1
        assert left == expected


def test_teacher_and_data_are_asked_once_a_step_and_once_a_split(member, monkeypatch):
    configs = [member(*CALM, f"method.temperature={t}") for t in (1, 2, 3)]
    run(member(*CALM))  # the teacher's own training is another matter
    seen: Counter[str] = Counter()
    forward, batches = Frozen.forward, TrainLoader.epoch

    def answer(self, x):
        seen["teacher"] += torch.is_grad_enabled()  # evaluation and probing have it off
        seen["splits"] += not torch.is_grad_enabled() and len(x) in (10, 5)  # of which probing has one example or two
        return forward(self, x)

    def read(self, *where):
        for batch in batches(self, *where):
            seen["batches"] += 1
            yield batch

    monkeypatch.setattr(Frozen, "forward", answer)
    monkeypatch.setattr(TrainLoader, "epoch", read)
    together(configs)
    # before training its gate reads the test set's 3 batches; whatever measures later asks about those, and "train"'s 1
    assert seen == {"teacher": 8, "batches": 8, "splits": 3 + 3 + 1}


@pytest.mark.slow
def test_killed_and_resumed_at_uneven_places(member, alone):
    slow = "trainer.checkpoint_seconds=1000"
    configs = [member(*MIXED, "method=crd"), member(*MIXED, slow), member(*MIXED, student=DROPOUT)]
    expected = [alone(c) for c in configs]
    # the first has two checkpoints and the second none when all die; then the third has one more
    for call in (4, 3):
        assert kill_at(configs, Moment("kdx.engine.checkpoint.Checkpoints", "save", call)) == -9
    steps = [torch.load(p, weights_only=True)["step"] for c in configs for p in folder_of(c).rglob("last.pt")]
    assert len(set(steps)) == len(steps) == 2
    results = together(configs)
    for place, left in enumerate(expected):
        assert outcome(results[place].folder) == {**left, "fused": 3}


def test_one_that_fails_leaves_the_others_running(member, alone):
    configs = [member(*CALM), member(*CALM, "optimizer.lr=1e30", "trainer.log_steps=1"), member(*CALM, "method=dkd")]
    results = together(configs)
    assert isinstance(results[1], NonFiniteError)
    assert "NonFiniteError" in (folder_of(configs[1]) / "error.txt").read_text()
    for place in (0, 2):
        assert outcome(results[place].folder) == {**alone(configs[place]), "fused": 3}


def test_finished_and_claimed_ones_are_left_alone(member, alone):
    configs = [member(*CALM, f"method.temperature={t}") for t in (1, 2, 3)]
    done = run(configs[0])
    files = {path: path.stat().st_mtime_ns for path in done.folder.rglob("*")}
    with locked(folder_of(configs[1])):
        results = together(configs)
    assert isinstance(results[1], LockedError) and results[0] == done
    assert {path: path.stat().st_mtime_ns for path in done.folder.rglob("*")} == files
    assert outcome(results[2].folder) == alone(configs[2])  # in the end it trained by itself, and says so


def test_a_batch_that_a_student_changes_is_read_anew(member, alone, monkeypatch):
    configs = [member(*CALM), member(*CALM, "method.temperature=2")]
    forward = ResNet.forward

    def careless(self, x):
        if self.training:
            x.mul_(1.5)
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", careless)
    results = together(configs)
    for place, config in enumerate(configs):
        assert outcome(results[place].folder) == {**alone(config), "fused": 2}


@pytest.mark.slow
def test_what_differs_only_in_the_student_is_shared(tiny):
    first = shared(tiny("data_seed=1"))
    for same in ("seed=5", "method=dkd", "optimizer.lr=0.5", "trainer.ema=0.5", "trainer.duration.steps=3"):
        assert shared(tiny("data_seed=1", same)) == first, same
    others = ("data_seed=2", "augmentation=none", "teacher.seed=2", "dataset.fraction=0.5", "method=supervised")
    for other in (*others, "trainer.batch_size=4", "trainer.channels_last=false"):
        assert shared(tiny("data_seed=1", other)) != first, other
    assert shared(tiny("seed=1")) != shared(tiny("seed=2"))  # whose data follow the seed


def tasks(*groups: int, teachers: frozenset[Path] = frozenset()) -> list[Task]:
    """As many tasks of each group as its number says, mixed."""
    empty = {key: None for key in ("dataset", "transfer", "augmentation", "role", "teacher")} | {"trainer": {}}

    def config(data_seed: int) -> RunConfig:
        values = empty | {"data_seed": data_seed}
        return cast(RunConfig, SimpleNamespace(**values, plain=lambda: values))

    made = [Task(f"{g}{i}", config(g), Path(f"{g}/{i}"), teachers) for g, n in enumerate(groups) for i in range(n)]
    return sorted(made, key=lambda task: task.label[1])


@pytest.mark.parametrize(
    ("groups", "jobs", "fused", "sizes"),
    [
        ((3, 2), 1, 1, [1, 1, 1, 1, 1]),
        ((3, 2), 1, 16, [3, 2]),
        ((7,), 1, 3, [2, 2, 3]),
        ((5,), 2, 16, [2, 3]),  # none is idle
        ((5, 5), 2, 16, [5, 5]),
        ((1,), 4, 16, [1]),
        ((2, 2), 4, 16, [1, 1, 1, 1]),
    ],
)
def test_teams(groups, jobs, fused, sizes):
    listed = tasks(*groups)
    teams = make_teams(listed, jobs, fused)
    assert sorted(map(len, teams)) == sorted(sizes)
    assert sorted(t.label for team in teams for t in team) == sorted(t.label for t in listed)
    assert all(len({t.config.data_seed for t in team}) == 1 for team in teams)


def test_teachers_and_students_are_never_one_team():
    teachers = tasks(2)
    students = tasks(4, teachers=frozenset(t.folder for t in teachers))
    students = [Task(t.label, t.config, Path("student") / t.folder, t.teachers) for t in students]
    teams = make_teams([*teachers, *students], 2, 16)
    assert [len(team) for team in teams] == [1, 1, 2, 2]


def test_teams_go_to_workers(member, alone):
    configs = [member(*CALM, f"method.temperature={t}") for t in (1, 2, 3)]
    broken = member(*CALM, "optimizer.lr=1e30", "trainer.log_steps=1")
    labels = {str(place): config for place, config in enumerate([*configs, broken])}
    results, (failure,) = run_all(labels, 2, None, 16)
    assert failure.label == "3" and "at step" in failure.error
    for place, config in enumerate(configs):
        assert outcome(results[str(place)].folder) == {**alone(config), "fused": 2}
