"""`kdx report` and `kdx compare` call the same runs repetitions of one experiment."""

from pathlib import Path

import pytest
from fabricate import changed, fabricate

from kdx.config.identity import experiment, identity, seeds
from kdx.core.errors import UserError
from kdx.models.weights import save_weights
from kdx.report.collect import collect
from kdx.report.compare import gather
from kdx.report.groups import group_runs
from kdx.runs.build import build_network

VALUES = {"test/top1": 0.5, "test/nll": 1.0}


def counts(folder: Path) -> list[int]:
    """Sizes of the groups that the report makes."""
    return sorted(len(group.runs) for group in group_runs(collect([folder]).runs).groups)


def teacher_run(folder: Path, tiny, seed: int, *overrides: str) -> Path:
    """A finished run with weights of its own, which may teach."""
    config = tiny("method=supervised", f"seed={seed}", *overrides)
    fabricate(folder, config, VALUES)
    save_weights(folder / "student.safetensors", build_network(config.student.net, seed), {})
    return folder


@pytest.fixture
def fresh(tmp_path, tiny):
    """Configs that are prepared anew, as a checkpoint's file may have come since."""
    from conftest import CLASSES, STUDENT, TINY

    from kdx.config.compose import compose
    from kdx.runs.prepare import examine

    return lambda *overrides: examine(compose([*CLASSES, *TINY, *STUDENT, f"paths.outputs={tmp_path}", *overrides]))


def test_seeds_of_a_chain_are_one_group(tmp_path, tiny, fresh):
    for seed in range(3):
        teacher = teacher_run(tmp_path / f"assistants/{seed}", tiny, seed)
        config = fresh("method=kd", f"seed={seed}", f"teacher.checkpoint={teacher}", "teacher.net.widths=[4,4,8,8]")
        assert config.teacher.experiment is not None
        fabricate(tmp_path / f"runs/{seed}", config, VALUES)
    assert counts(tmp_path / "runs") == [3]
    assert [run.seed for run in gather(str(tmp_path / "runs"), False)] == [0, 1, 2]
    assert [run.seed for run in gather(str(tmp_path / "runs/1"), True)] == [0, 1, 2]


def test_a_chain_of_three_is_one_group_over_its_seeds(tmp_path, tiny, fresh):
    for seed in range(2):
        first = teacher_run(tmp_path / f"first/{seed}", tiny, seed)
        widths = "teacher.net.widths=[4,4,8,8]"
        middle = fresh("method=kd", f"seed={seed}", f"teacher.checkpoint={first}", widths)
        folder = fabricate(tmp_path / f"middle/{seed}", middle, VALUES)
        save_weights(folder / "student.safetensors", build_network(middle.student.net, seed + 10), {})
        last = fresh("method=kd", f"seed={seed}", f"teacher.checkpoint={folder}", widths)
        fabricate(tmp_path / f"last/{seed}", last, VALUES)
    assert counts(tmp_path / "last") == [2] and len(gather(str(tmp_path / "last"), False)) == 2


def test_the_same_student_of_other_seeds_of_a_teacher_is_a_repetition(tmp_path, tiny, fresh):
    for seed in range(3):
        teacher = teacher_run(tmp_path / f"teachers/{seed}", tiny, seed)
        config = fresh("method=kd", "seed=0", f"teacher.checkpoint={teacher}", "teacher.net.widths=[4,4,8,8]")
        fabricate(tmp_path / f"runs/{seed}", config, VALUES)
    assert counts(tmp_path / "runs") == [3] and len(gather(str(tmp_path / "runs"), False)) == 3


def test_students_of_other_experiments_are_none(tmp_path, tiny, fresh):
    for place, lr in enumerate((0.01, 0.02)):
        teacher = teacher_run(tmp_path / f"teachers/{place}", tiny, 0, f"optimizer.lr={lr}")
        # other weights, as another rate makes them
        weights = build_network(tiny("method=supervised").student.net, place)
        save_weights(teacher / "student.safetensors", weights, {})
        config = fresh("method=kd", f"teacher.checkpoint={teacher}", "teacher.net.widths=[4,4,8,8]")
        fabricate(tmp_path / f"runs/{place}", config, VALUES)
    assert counts(tmp_path / "runs") == [1, 1]
    with pytest.raises(UserError, match="2 experiments"):
        gather(str(tmp_path / "runs"), False)


def test_a_checkpoint_of_no_run_counts_by_its_content(tmp_path, fresh):
    net = fresh("method=kd", "teacher.checkpoint=null").teacher.net
    for seed in range(2):
        file = tmp_path / f"weights{seed}.safetensors"
        save_weights(file, build_network(net, seed), {})
        fabricate(tmp_path / f"runs/{seed}", fresh("method=kd", f"seed={seed}", f"teacher.checkpoint={file}"), VALUES)
    assert counts(tmp_path / "runs") == [1, 1]


def test_members_of_an_ensemble_at_other_paths_are_the_same_members(tmp_path, fresh):
    net = fresh("method=kd", "teacher.checkpoint=null").teacher.net
    for seed in range(2):
        place = tmp_path / f"machine{seed}"
        for name in ("a", "b"):
            save_weights(place / f"{name}.safetensors", build_network(net, ord(name)), {})
        members = "teacher.members={" + ",".join(f"{n}: {{checkpoint: {place}/{n}.safetensors}}" for n in "ab") + "}"
        fabricate(tmp_path / f"runs/{seed}", fresh("method=kd_ensemble", f"seed={seed}", members), VALUES)
    assert counts(tmp_path / "runs") == [2] and len(gather(str(tmp_path / "runs"), False)) == 2


def test_numbers_that_are_typed_otherwise_are_the_same(tmp_path, tiny):
    kd = tiny("method=kd")
    for seed, temperature in enumerate((4, 4.0)):
        fabricate(tmp_path / str(seed), changed(kd, seed=seed, method__terms__kd__temperature=temperature), VALUES)
    assert counts(tmp_path) == [2]


@pytest.mark.parametrize(
    ("path", "value"), [("trainer__log_steps", 7), ("trainer__eval_batch_size", 9), ("teacher__recipe", ["x=1"])]
)
def test_what_is_no_identity_makes_no_group(tiny, path, value):
    kd = tiny("method=kd")
    other = changed(kd, **{path: value})
    assert identity(other) == identity(kd) and experiment(other) == experiment(kd) and seeds(other) == seeds(kd)


def test_runs_of_one_identity_are_of_one_experiment_and_one_set_of_seeds(tiny):
    """The identity is a function of the two; so no run is in two groups."""
    kd = tiny("method=kd")
    variants = [kd, changed(kd, seed=1), changed(kd, optimizer__lr=0.5), changed(kd, trainer__device="cuda")]
    for a in variants:
        for b in variants:
            assert (identity(a) == identity(b)) == (experiment(a) == experiment(b) and seeds(a) == seeds(b))
