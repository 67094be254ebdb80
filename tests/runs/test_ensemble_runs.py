"""Several teachers, from the command to the result: whose they are, what is refused, and what makes another run."""

import json
import re
from pathlib import Path

import pytest
from conftest import CLASSES, STUDENT, TINY
from deaths import Moment, kill_at
from traces import outcome

from kdx.config.compose import ConfigError, compose
from kdx.config.identity import identity
from kdx.config.schema import RunConfig, run_config
from kdx.models.weights import save_weights, sha256
from kdx.pool.pool import run_all
from kdx.report.collect import Run
from kdx.report.recompute import recompute
from kdx.runs.build import build_network
from kdx.runs.prepare import examine, prepare
from kdx.runs.results import PREDICTIONS
from kdx.runs.run import name, run

SEEDS = "teacher.seeds=[0,1]"


def composed(*overrides: str) -> RunConfig:
    return examine(compose([*CLASSES, *TINY, *STUDENT, *overrides]))


def problems(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(compose([*CLASSES, *TINY, *STUDENT, *overrides]))
    return "\n".join(caught.value.problems)


def test_each_member_trains_once_and_all_are_reported(tiny):
    config = tiny(SEEDS, "method=kd_ensemble")
    result = run(config)
    teachers = Path(config.paths.teachers)
    facts = result.data["teacher"]
    assert sorted(facts["members"]) == ["seed0", "seed1"] and facts["net"] == "2xresnet8"
    assert "from-2xresnet8" in result.folder.name
    for member in facts["members"].values():
        folder = teachers / member["trained_by"]
        assert member["sha256"] == sha256(folder / "student.safetensors")
        assert 0 <= member["test/top1"] <= 1
    checksums = {m["sha256"] for m in facts["members"].values()}
    assert len(checksums) == 2 and facts["sha256"] not in checksums
    before = {p.name: (p / "DONE").stat().st_mtime_ns for p in teachers.iterdir()}
    assert len(before) == 2
    # the single teacher is one of them, and a third member the only new one
    single = run(tiny("method=kd"))
    assert single.data["teacher"]["trained_by"] == facts["members"]["seed0"]["trained_by"]
    run(tiny("teacher.seeds=[2,0,1]", "method=kd_ensemble"))
    after = {p.name: (p / "DONE").stat().st_mtime_ns for p in teachers.iterdir()}
    assert len(after) == 3 and before.items() <= after.items()


def test_predictions_can_be_recomputed_with_the_very_members(tiny, tmp_path):
    config = tiny(SEEDS)
    result = run(config)
    (result.folder / PREDICTIONS).unlink(missing_ok=True)
    assert recompute(Run(result, config.plain())) is None and (result.folder / PREDICTIONS).exists()
    weights = Path(result.data["teacher"]["members"]["seed1"]["weights"])
    weights.rename(tmp_path / "gone")
    assert "weights of its teacher are missing" in str(recompute(Run(result, config.plain())))


def test_killed_while_a_member_trains_or_the_student_learns(tiny, tmp_path):
    config = tiny(SEEDS, "method=dgkd", "trainer.checkpoint_seconds=0")
    calm = config.plain()
    calm["paths"] |= {key: f"{calm['paths'][key]}-calm" for key in ("runs", "teachers")}
    for member in calm["teacher"]["members"].values():
        member["training"]["paths"] = calm["paths"]
    expected = outcome(run(run_config(calm)).folder)
    # each teacher takes 5 steps, the student 8, and each step is saved
    assert kill_at(config, Moment("kdx.engine.checkpoint.Checkpoints", "save", 8)) == -9
    first, second = sorted(Path(config.paths.teachers).iterdir(), key=lambda p: "seed1" in p.name)
    assert (first / "DONE").exists() and not (second / "DONE").exists()
    assert kill_at(config, Moment("kdx.engine.checkpoint.Checkpoints", "save", 7)) == -9
    folder = Path(config.paths.runs) / name(config)
    assert (second / "DONE").exists() and list((folder / "checkpoints").iterdir()) and not (folder / "DONE").exists()
    # but for the place of the teachers' weights, which is another
    assert repr(outcome(run(config).folder)) == repr(expected).replace("-calm", "")


def announced(capsys) -> list[str]:
    lines = re.findall(r"kdx: \[.*\] (.*)", capsys.readouterr().err)
    return [line.removesuffix(", together") for line in lines]


def test_each_member_is_a_run_of_its_own_before_those_that_it_teaches(tiny, tmp_path, capsys):
    def configs(place: str) -> dict[str, RunConfig]:
        made = {"all": tiny(SEEDS).plain(), "one": tiny("teacher.seed=1").plain()}
        moved = json.loads(json.dumps(made).replace(str(tmp_path), str(tmp_path / place)))
        return {label: run_config(config) for label, config in moved.items()}

    expected = run_all(configs("one"), 1, None, 1)[0]
    assert announced(capsys) == ["teacher resnet8, seed 0", "teacher resnet8, seed 1", "all", "one"]
    results, failures = run_all(configs("two"), 2, None, 1)
    assert not failures
    order = announced(capsys)
    assert sorted(order[:2]) == ["teacher resnet8, seed 0", "teacher resnet8, seed 1"]
    assert sorted(order[2:]) == ["all", "one"]
    teachers = list((tmp_path / "two").glob("**/teachers/*"))
    # each in a process of its own, not inside a student's
    assert len(teachers) == 2 and all((folder / "output.txt").exists() for folder in teachers)
    for label, result in results.items():
        left = repr(outcome(result.folder))
        assert left.replace(str(tmp_path / "two"), str(tmp_path / "one")) == repr(outcome(expected[label].folder))


def test_a_member_that_fails_stops_those_that_it_teaches_alone(tiny, capsys):
    broken = "teacher.members={good: {seed: 0}, bad: {recipe: ['trainer.batch_size=8','optimizer.lr=1e30']}}"
    results, failures = run_all({"all": tiny(broken), "one": tiny()}, 1, None, 1)
    (failure,) = failures
    assert list(results) == ["one"] and failure.label == "all" and "its teacher failed: " in failure.error
    assert "all" not in announced(capsys)


def test_seeds_are_members_in_short():
    long = "teacher.members={seed0: {seed: 0}, seed1: {seed: 1}}"
    assert identity(composed(SEEDS)) == identity(composed(long))
    assert identity(composed("teacher.seeds=[1,0]")) == identity(composed(SEEDS))
    assert identity(composed(SEEDS)) != identity(composed("teacher.seeds=[0,1,2]"))


@pytest.mark.parametrize(
    "override",
    [
        "teacher.combine=geometric",
        "teacher.combine_temperature=4.0",
        "teacher.features=seed0",
        "teacher.net.widths=[4,4,4,4]",
        "teacher.recipe=['optimizer.lr=0.5']",
        "teacher.weight=2.0",
    ],
)
def test_what_the_members_are_and_how_they_are_one_is_identity(override: str):
    assert identity(composed(SEEDS, override)) != identity(composed(SEEDS))


def test_what_a_member_overrides_leaves_nothing_of_what_it_replaced():
    own = "teacher.members={a: {seed: 1}, b: {seed: 2}}"
    assert identity(composed(own, "teacher.seed=5")) == identity(composed(own))
    teacher = composed(own).teacher
    assert teacher.net == {} and teacher.seed is None and teacher.training is None
    assert identity(composed(own)) == identity(composed(own, "teacher.expected=0.0", "teacher.tolerance=0.5"))


def test_members_differ_in_whatever_a_teacher_has(tmp_path):
    member = {"widths": [4, 4, 4, 4], "depth": 14}
    net = composed().teacher.net | member
    save_weights(tmp_path / "given.safetensors", build_network(net, 3), {})
    config = composed(
        f"teacher.members={{a: {{net: {{depth: 14, widths: [4,4,4,4]}}, checkpoint: '{tmp_path}/given.safetensors'}},"
        " b: {net: cnn_small, mean: [0.1,0.1,0.1], std: [1.0,1.0,1.0], weight: 3.0, recipe: ['optimizer.lr=0.02']}}"
    )
    a, b = config.teacher.members.values()
    assert a.net == net and a.sha256 == sha256(tmp_path / "given.safetensors") and a.training is None
    assert b.training.student.net == b.net and b.net["_target_"].endswith("SmallCNN")
    assert b.net["num_classes"] == 5 and b.training.optimizer["lr"] == 0.02 and b.weight == 3.0
    assert config.choices["teacher"] == "resnet8+cnn_small"
    # the content of a given file counts, and where it is does not
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((tmp_path / "given.safetensors").read_bytes())
    again = f"teacher.members={{a: {{net: {{depth: 14, widths: [4,4,4,4]}}, checkpoint: '{moved}'}}}}"
    before = (
        f"teacher.members={{a: {{net: {{depth: 14, widths: [4,4,4,4]}}, checkpoint: '{tmp_path}/given.safetensors'}}}}"
    )
    assert identity(composed(again)) == identity(composed(before))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ((SEEDS, "teacher.members={a: {seed: 3}}"), "give one of the two"),
        (("teacher.seeds=[]",), "at least one"),
        (("teacher.seeds=[1,1]",), "different numbers"),
        ((SEEDS, f"teacher.checkpoint={__file__}"), "trains a teacher for each seed, but teacher.checkpoint="),
        (
            (f"teacher.members={{a: {{checkpoint: {__file__}, recipe: ['optimizer.lr=1']}}}}",),
            "teacher.members.a: recipe configures the training of a teacher",
        ),
        (("teacher.members={a: {sed: 3}}",), "unknown key 'teacher.members.a.sed'; did you mean 'seed'"),
        (("teacher.members={a: {seed: -3}}",), "teacher.members.a.seed: must be at least 0"),
        (("teacher.members={a: {net: resnet9}}",), "teacher.members.a.net: there is no network 'resnet9'"),
        (("teacher.members={a: 3}",), "teacher.members.a: must be keys with values"),
        (("teacher.members={a: {checkpoint: /nowhere}}",), "teacher.checkpoint=/nowhere: no such file"),
        ((SEEDS, "teacher.combine=harmonic"), "must be 'arithmetic', 'geometric' or 'specialists'"),
        ((SEEDS, "teacher.features=seed7"), "no member 'seed7'; members: seed0, seed1"),
        ((SEEDS, "method=fitnet"), "method=fitnet reads features, which one member of an ensemble provides: name it"),
        ((SEEDS, "method=simkd"), "teacher.features=seed0"),
        ((SEEDS, "teacher.optimize=int8", "method=sobolev"), "and this ensemble has no derivatives"),
        ((SEEDS, "teacher.optimize=int8", "method=fitnet", "teacher.features=seed0"), "gives a teacher's logits alone"),
    ],
)
def test_mistakes_are_reported_before_anything_trains(overrides: tuple[str, ...], sentence: str):
    assert sentence in problems(*overrides)


# one of each way of asking a teacher
@pytest.mark.parametrize("method", ["kd", "dkd", "dist", "mlkd", "noisy_teacher", "sobolev", "jacobian", "logit_mse"])
def test_methods_on_logits_take_an_ensemble_as_it_is(method: str, tiny):
    views = ("augmentation=two_shifts",) if method == "mlkd" else ()
    result = run(tiny(SEEDS, f"method={method}", "trainer.duration.steps=2", *views))
    assert len(result.data["teacher"]["members"]) == 2


@pytest.mark.parametrize("method", ["fitnet", "ofd", "srrl", "simkd", "crd"])
def test_methods_on_features_take_those_of_the_named_member(method: str, tiny):
    config = tiny(SEEDS, "teacher.features=seed1", f"method={method}", "trainer.duration.steps=2")
    assert run(config).data["teacher"]["net"] == "2xresnet8"
