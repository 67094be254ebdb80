"""Runs that take one of several state dicts of a file, and a SimKD student as a teacher."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdx.core.errors import UserError
from kdx.models.cifar.resnet import ResNet
from kdx.report.collect import Run
from kdx.report.recompute import recompute
from kdx.runs.build import build_teacher, start_student
from kdx.runs.export import folder_of
from kdx.runs.fill import weights_file
from kdx.runs.results import PREDICTIONS
from kdx.runs.run import run
from kdx.runs.teacher import find_weights

STUDENT, TEACHER = (4, 4, 8, 8), (6, 6, 10, 10)


def net(seed: int, widths=TEACHER) -> ResNet:
    torch.manual_seed(seed)
    return ResNet(depth=8, widths=widths, num_classes=5, in_channels=3)


def saved(path: Path, **state_dicts: ResNet) -> Path:
    torch.save({"epoch": 3} | {name: one.state_dict() for name, one in state_dicts.items()}, path)
    return path


def test_the_chosen_weights_teach_and_are_part_of_the_identity(tiny, tmp_path):
    both = saved(tmp_path / "both.pt", state_dict=net(0), state_dict_ema=net(1))
    configs = [tiny(f"teacher.checkpoint={both}{name}") for name in ("", "::state_dict", "::state_dict_ema")]
    assert len({folder_of(config) for config in configs}) == 3
    found = build_teacher(configs[2], find_weights(configs[2], run)[""]).state_dict()
    assert all(torch.equal(found[f"net.{name}"], value) for name, value in net(1).state_dict().items())


@pytest.mark.slow
def test_a_run_records_the_choice_and_predictions_are_computed_with_it(tiny, tmp_path, capfd):
    both = saved(tmp_path / "both.pt", state_dict=net(0), state_dict_ema=net(1))
    alone = saved(tmp_path / "alone.pt", state_dict=net(1))
    config = tiny(f"teacher.checkpoint={both}::state_dict_ema")
    averaged, expected = run(config), run(tiny(f"teacher.checkpoint={alone}"))
    own, same = (load_file(result.student) for result in (averaged, expected))
    assert all(torch.equal(own[name], value) for name, value in same.items())
    assert "is used" not in capfd.readouterr().err  # the choice is made
    assert averaged.data["teacher"]["weights"] == f"{both}::state_dict_ema"
    (averaged.folder / PREDICTIONS).unlink(missing_ok=True)
    assert recompute(Run(averaged, config.plain())) is None and (averaged.folder / PREDICTIONS).exists()


def test_a_student_starts_from_the_chosen_weights(tiny, tmp_path):
    file = saved(tmp_path / "x.pt", state_dict=net(0, STUDENT), state_dict_ema=net(1, STUDENT))
    config = tiny(f"student.checkpoint={file}::state_dict_ema", "method=supervised")
    found = start_student(config, weights_file(str(config.student.checkpoint), "student.checkpoint")).state_dict()
    assert all(torch.equal(found[name], value) for name, value in net(1, STUDENT).state_dict().items())


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_an_absent_name_is_refused_before_anything_is_written(tiny, tmp_path, role):
    file = saved(tmp_path / "x.pt", state_dict=net(0), state_dict_ema=net(1))
    config = tiny(f"{role}.checkpoint={file}::nope")
    with pytest.raises(UserError, match="x.pt has no state dict 'nope'; it has state_dict, state_dict_ema$"):
        run(config)
    assert not folder_of(config).exists()


def test_a_run_has_nothing_to_choose_from(tmp_path):
    with pytest.raises(UserError, match="a run exports one network, so leave out ::ema"):
        weights_file(f"{tmp_path}::ema", "teacher.checkpoint")


def test_a_simkd_student_as_teacher_is_two_networks(tiny):
    trained = run(tiny("method=simkd", "teacher.checkpoint=null"))
    with pytest.raises(UserError, match="holds parts of two networks: SimKD's student with its projector"):
        run(tiny(f"teacher.checkpoint={trained.folder}", "teacher.net.widths=[4,4,8,8]"))
