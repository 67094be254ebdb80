"""Examples that choose a student must be new to its teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from kdx.core.errors import UserError
from kdx.models.weights import save_weights
from kdx.runs.build import build_light, build_loaders, build_network
from kdx.runs.checks.overlap import _refuse, overlaps
from kdx.runs.run import run

VAL = ("dataset.val_fraction=0.25", "dataset.val_seed=3")
HELD = ("transfer=heldout", "transfer.held_out_seed=1")


@pytest.fixture
def past(tiny, tmp_path):
    """A finished run with the given overrides, as far as a later run reads it: its weights and its config."""

    def make(*overrides: str) -> str:
        config = tiny("method=supervised", "student.net.widths=[6,6,10,10]", *overrides)
        folder = tmp_path / f"past{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        save_file({"w": torch.zeros(len(folder.name))}, folder / "student.safetensors")
        (folder / "config.yaml").write_text(yaml.safe_dump(config.plain()))
        return str(folder)

    return make


def check(tiny, *overrides: str) -> list[str]:
    config = tiny(*overrides)
    light = build_light(config)
    return list(overlaps(config, light.transfer, build_loaders(config, light).splits))


def given(teacher: str) -> tuple[str, ...]:
    return "method=kd", f"teacher.checkpoint={teacher}"


@pytest.mark.parametrize("regime", [(), ("dataset.val_fraction=0.25", "dataset.val_seed=4"), ("dataset.fraction=0.5",)])
def test_a_teacher_that_saw_the_validation_set_is_refused(tiny, past, regime):
    teacher = past(*regime)
    with pytest.raises(
        UserError, match=r"of the 10 validation examples are in the training set of teacher.checkpoint="
    ):
        check(tiny, *given(teacher), *VAL)
    assert check(tiny, *given(teacher)) == []  # nothing is chosen


def test_a_teacher_with_the_same_validation_set_passes(tiny, past):
    assert check(tiny, *given(past(*VAL)), *VAL) == []
    assert check(tiny, *given(past(*VAL, "dataset.fraction=0.5")), *VAL) == []


def test_a_student_that_starts_from_a_run_is_checked_as_a_teacher_is(tiny, past):
    start = "method=supervised", "student.net.widths=[6,6,10,10]", *VAL
    assert check(tiny, *start, f"student.checkpoint={past(*VAL)}") == []
    with pytest.raises(UserError, match=r"validation examples are in the training set of student.checkpoint="):
        check(tiny, *start, f"student.checkpoint={past()}")


def test_a_start_of_the_start_counts(tiny, past):
    first = past()
    second = past(*VAL, f"student.checkpoint={first}")
    with pytest.raises(UserError, match="10 of the 10 validation examples"):
        check(tiny, *given(second), *VAL)


def test_a_teacher_that_saw_the_held_out_part_is_refused(tiny, past):
    with pytest.raises(UserError, match=r"20 of the 20 transfer examples .*transfer.part=rest"):
        check(tiny, *given(past()), *HELD)
    with pytest.raises(UserError, match=r"of the 20 transfer examples"):
        check(tiny, *given(past("transfer=heldout", "transfer.part=rest")), *HELD)  # of another seed
    assert check(tiny, *given(past(*HELD, "transfer.part=rest")), *HELD) == []


def test_data_under_another_name_is_compared_by_content(tiny, past):
    other = past("dataset.name=other")
    with pytest.raises(UserError, match="10 of the 10 validation examples"):
        check(tiny, *given(other), *VAL)
    assert check(tiny, *given(past("dataset.name=other", "dataset.seed=1")), *VAL) == []
    assert check(tiny, *given(past("dataset.name=other", *VAL)), *VAL) == []


def test_data_that_is_gone_is_reported(tiny, past, tmp_path):
    gone = past()
    file = tmp_path / gone / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["dataset"] |= {"_target_": "kdx.data.sources.cifar.Cifar", "root": str(tmp_path), "download": False}
    for key in ("train_size", "test_size", "noise", "seed"):
        del config["dataset"][key]
    file.write_text(yaml.safe_dump(config | {"dataset": config["dataset"] | {"verify": False}}))
    (line,) = check(tiny, *given(gone), *VAL)
    assert "cannot compare the examples that trained it (" in line and "looked for" in line


def test_a_recipe_that_gives_the_teacher_the_validation_set_is_refused(tiny):
    assert check(tiny, "method=kd", *VAL) == []
    with pytest.raises(UserError, match="10 of the 10 validation examples .* by teacher.recipe"):
        check(tiny, "method=kd", *VAL, "teacher.recipe=['dataset.val_fraction=0.0']")


def test_a_checkpoint_without_a_config_passes(tiny, tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "weights.safetensors")
    assert check(tiny, *given(str(tmp_path / "weights.safetensors")), *VAL) == []


def test_unlabelled_images_must_not_hold_the_validation_set(tiny):
    other = ("method=kd", "transfer=other", "dataset@transfer.unlabelled.dataset=synthetic")
    size = [f"transfer.unlabelled.dataset.{key}" for key in ("input_shape=[3,8,8]", "train_size=40", "num_classes=5")]
    with pytest.raises(
        UserError, match=r"10 of the 10 validation examples are in transfer.unlabelled; choose other im"
    ):
        check(tiny, *other, *size, *VAL)
    assert check(tiny, *other, *size) == []
    assert check(tiny, *other, *size, "transfer.unlabelled.dataset.seed=5", *VAL) == []


def test_a_run_checks_before_it_trains(tiny, past):
    folder = past()
    save_weights(Path(folder) / "student.safetensors", build_network(tiny("method=kd").teacher.net, 1), {})
    config = tiny(*given(folder), *VAL)
    with pytest.raises(UserError, match="10 of the 10 validation examples"):
        run(config)


@pytest.mark.parametrize(("number", "refused"), [(0, False), (2, False), (3, True)])
def test_one_of_a_hundred_may_be_a_natural_duplicate(number: int, refused: bool):
    known = np.arange(200) < number
    if not refused:
        _refuse(known, "test", "there", "choose others")
        return
    with pytest.raises(UserError, match="3 of the 200 test examples are in there; choose others"):
        _refuse(known, "test", "there", "choose others")
