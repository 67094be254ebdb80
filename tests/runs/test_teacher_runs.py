"""Sources of a run's teacher, and settings that are refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from traces import outcome

from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.seed import derive
from kdx.models.weights import load_weights, save_weights
from kdx.runs.build import build_network
from kdx.runs.export import folder_of
from kdx.runs.run import name, run, train_teacher


def weights_at(path: Path, widths=(6, 6, 10, 10), classes: int = 5) -> Path:
    from kdx.models.cifar.resnet import ResNet

    torch.manual_seed(0)
    save_weights(path, ResNet(depth=8, widths=widths, num_classes=classes, in_channels=3), {})
    return path


def refused(config: RunConfig, sentence: str) -> None:
    """The run ends with a sentence before the student trains."""
    with pytest.raises(UserError, match=sentence) as found:
        run(config)
    assert "\n" not in str(found.value)
    folder = Path(config.paths.runs) / name(config)
    assert not {p.name for p in folder.glob("*")} & {"DONE", "student.safetensors", "metrics.jsonl", "checkpoints"}


def test_one_teacher_is_trained_and_shared(tiny, capfd):
    first = run(tiny())
    assert capfd.readouterr().err.count("training the teacher first") == 1
    (folder,) = Path(tiny().paths.teachers).iterdir()
    trained = (folder / "student.safetensors").stat().st_mtime_ns
    results = [run(tiny(*o)) for o in (("method=dkd",), ("seed=1",), ("method=alone", "optimizer.lr=0.3"))]
    assert "training the teacher" not in capfd.readouterr().err
    facts = [r.data["teacher"] for r in (first, *results)]
    assert all(f == facts[0] for f in facts)
    assert facts[0]["sha256"] == hashlib.sha256((folder / "student.safetensors").read_bytes()).hexdigest()
    assert facts[0]["weights"] == str(folder / "student.safetensors") and facts[0]["trained_by"] == folder.name
    assert (folder / "student.safetensors").stat().st_mtime_ns == trained
    run(tiny("teacher.seed=1"))
    assert len(list(folder.parent.iterdir())) == 2


def test_a_teacher_to_be_trained_is_a_run_of_its_own(tiny, tmp_path):
    run(tiny())
    (folder,) = Path(tiny().paths.teachers).iterdir()
    training = tiny().teacher.training
    alone = run(replace(training, paths=replace(training.paths, runs=str(tmp_path / "by itself"))))
    assert outcome(alone.folder) == outcome(folder)


def test_a_given_teacher_gives_the_same_student(tiny, tmp_path):
    trained = run(tiny())
    (folder,) = Path(tiny().paths.teachers).iterdir()
    by_folder = run(tiny(f"teacher.checkpoint={folder}"))
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes((folder / "student.safetensors").read_bytes())
    by_file = run(tiny(f"teacher.checkpoint={copy}"))
    assert by_file.folder == by_folder.folder != trained.folder  # the same content is the same run
    assert by_file.data["teacher"]["trained_by"] is None

    def tensors(result):
        net = build_network(tiny().student.net, 0)
        load_weights(net, result.student)
        return net.state_dict()

    ours, theirs = tensors(trained), tensors(by_file)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_a_teacher_as_it_is_built_is_kept_for_the_runs_to_come(tiny, monkeypatch):
    first = run(tiny("teacher.checkpoint=null"))
    (file,) = Path(tiny().paths.teachers).iterdir()
    node = tiny("teacher.checkpoint=null").teacher
    net = build_network(node.net, derive(node.seed, "teacher"))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    load_weights(net, file)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    # where its weights come from may be out of reach by then
    monkeypatch.setattr("kdx.runs.teacher.build_network", lambda *_: pytest.fail("built again"))
    second = run(tiny("teacher.checkpoint=null", "seed=1"))
    assert first.data["teacher"] == second.data["teacher"]
    assert first.data["teacher"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert first.data["identity"] != run(tiny()).data["identity"]


def test_a_teacher_that_misses_its_accuracy_is_refused(tiny, tmp_path):
    weights = weights_at(tmp_path / "random.safetensors")
    given = (f"teacher.checkpoint={weights}", "teacher.expected=0.99")
    refused(tiny(*given), r"top-1 of 0\.\d+, but teacher.expected is 0.99 \(tolerance 0.01\)")
    assert run(tiny(*given, "teacher.tolerance=1.0")).data["teacher"]["test/top1"] < 0.9
    assert run(tiny(given[0], "teacher.expected=null")).data["teacher"]["test/top1"] < 0.9


def test_foreign_weights_are_refused(tiny, tmp_path):
    weights = weights_at(tmp_path / "wider.safetensors", widths=(8, 8, 10, 10))
    refused(tiny(f"teacher.checkpoint={weights}"), "does not fit")


@pytest.mark.parametrize("key", ["teacher.checkpoint", "student.checkpoint"])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_that_misfit_are_found_before_the_folder_of_the_run_exists(tiny, tmp_path, key, kind):
    weights = weights_at(tmp_path / "wider.safetensors", widths=(8, 8, 10, 10))
    if kind == "pt":
        torch.save({"state_dict": load_file(weights)}, weights := tmp_path / "wider.pt")
    config = tiny("teacher.checkpoint=null", f"{key}={weights}")
    with pytest.raises(UserError, match=rf"{weights} does not fit: '.*' is \(") as found:
        run(config)
    assert "\n" not in str(found.value) and not folder_of(config).exists()
    assert not Path(config.paths.teachers).exists()


def test_weights_of_other_classes_are_refused(tiny, tmp_path):
    weights = weights_at(tmp_path / "seven.safetensors", classes=7)
    refused(tiny(f"teacher.checkpoint={weights}"), "the checkpoint has 7 classes, the network 5")


def test_damaged_weights_are_refused(tiny, tmp_path):
    weights = weights_at(tmp_path / "cut.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(tiny(f"teacher.checkpoint={weights}"), "damaged or cut short")


@pytest.mark.parametrize("classes", [3, 7])
def test_a_network_of_other_classes_is_refused_in_a_sentence(tiny, tmp_path, classes: int):
    weights = weights_at(tmp_path / "other.safetensors", classes=classes)
    with pytest.raises(UserError, match=f"found {classes}|has {classes} outputs"):
        run(tiny(f"teacher.checkpoint={weights}", f"teacher.net.num_classes={classes}"))


def test_a_missing_checkpoint_is_reported_before_anything_runs(tiny, tmp_path):
    for given, sentence in ((tmp_path / "nothing", "no such file"), (tmp_path, "is the run finished")):
        with pytest.raises(UserError, match=f"teacher.checkpoint={given}: .*{sentence}"):
            tiny(f"teacher.checkpoint={given}")


def test_a_teachers_own_statistics_reach_its_inputs(tiny, tmp_path):
    weights = weights_at(tmp_path / "random.safetensors")
    given, mean, std = f"teacher.checkpoint={weights}", "mean=[0.4,0.5,0.6]", "std=[0.1,0.25,0.5]"
    # a student whose data come with the teacher's statistics, and one whose data come with others
    theirs = run(tiny(given, f"dataset.{mean}", f"dataset.{std}")).data["teacher"]
    renormalised = run(tiny(given, f"teacher.{mean}", f"teacher.{std}")).data["teacher"]
    ignored = run(tiny(given)).data["teacher"]
    assert renormalised["test/nll"] == pytest.approx(theirs["test/nll"], rel=1e-5)
    assert ignored["test/nll"] != pytest.approx(theirs["test/nll"], rel=1e-3)
    with pytest.raises(UserError, match="teacher.mean and teacher.std must be given together"):
        run(tiny(given, f"teacher.{mean}"))


def test_a_teacher_that_measures_otherwise_than_its_result_is_noticed(tiny, capfd):
    run(tiny())
    (folder,) = Path(tiny().paths.teachers).iterdir()
    assert "in its result" not in capfd.readouterr().err
    given = (f"teacher.checkpoint={folder}", "teacher.mean=[0.9,0.9,0.9]", "teacher.std=[0.1,0.25,0.5]")
    there = run(tiny(*given)).data["teacher"]["test/top1"]
    stated = json.loads((folder / "result.json").read_text())["metrics"]["last"]["test/top1"]
    assert there != stated  # inputs with other statistics
    assert f"reaches a test top-1 of {there:.4f} here, and {stated:.4f} in its result" in capfd.readouterr().err


def test_a_run_resumes_only_with_the_teacher_that_it_started_with(tiny, monkeypatch):
    config = tiny("trainer.checkpoint_seconds=0")
    train_teacher(config.teacher.training)
    with monkeypatch.context() as patch:
        patch.setattr("kdx.runs.run.export_run", lambda *_: 1 / 0)  # all steps done, nothing exported
        with pytest.raises(ZeroDivisionError):
            run(config)
    with monkeypatch.context() as patch:
        patch.setattr("kdx.runs.teacher.sha256", lambda _: "f" * 64)  # as after another training of the teacher
        with pytest.raises(UserError, match="a teacher with the sha256 .*, and the teacher.s weights now have f{12};"):
            run(config)
    assert run(config).data["steps"] == 8
