"""Library networks that are built for one size get the data's size, and nothing else is changed."""

import pytest
from door import SMALL

from kdx.config.compose import ConfigError, compose
from kdx.config.schema import RunConfig
from kdx.core import notice
from kdx.runs.checks import input_size
from kdx.runs.prepare import examine, prepare

IMAGES = [o for o in SMALL if "input_shape" not in o and "dataset.mean" not in o and "dataset.std" not in o]
IMAGES += ["dataset.input_shape=[3,32,32]", "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.2,0.2,0.2]"]
TIMM = [o for o in IMAGES if not o.startswith("student")]


def examined(*overrides: str) -> RunConfig:
    return examine(compose([*TIMM, "method=supervised", *overrides]))


def test_a_vision_transformer_gets_the_size_of_the_images(monkeypatch, capsys):
    monkeypatch.setattr(notice, "_said", set())
    net = examined("student=timm", "student.net.name=vit_tiny_patch16_224").student.net
    assert net["options"] == {"img_size": 32}
    assert capsys.readouterr().err.splitlines() == [
        "kdx: student.net.options.img_size=32, the size of the images; vit_tiny_patch16_224 is built for one size"
    ]


def test_a_teacher_and_its_own_training_get_the_same_size():
    own = ["student=mlp_30", "teacher=torchvision", "teacher.net.name=vit_b_16"]
    config = examine(compose([*[o for o in TIMM if not o.startswith("teacher")], "method=kd", *own]))
    assert config.teacher is not None and config.teacher.training is not None
    assert config.teacher.net["options"] == {"image_size": 32} == config.teacher.training.student.net["options"]


@pytest.mark.parametrize(
    ("name", "set_by_user"),
    [
        ("resnet18", []),  # works at any size
        ("vit_tiny_patch16_224", ["+student.net.options.img_size=64"]),  # set by the user
        ("no_such_network", []),
    ],
)
def test_what_works_or_is_set_is_left_alone(name: str, set_by_user: list[str], capsys):
    net = examined("student=timm", f"student.net.name={name}", *set_by_user).student.net
    assert net["options"] == ({"img_size": 64} if set_by_user else {})
    assert not capsys.readouterr().err


def test_a_size_that_cannot_be_set_is_refused_before_training():
    overrides = [*TIMM, "method=supervised", "student=timm", "student.net.name=vit_tiny_patch16_224"]
    with pytest.raises(ConfigError) as found:
        prepare(compose([*overrides, "+student.net.options.img_size=64"]))
    (line,) = found.value.problems
    assert line.startswith("student.net: VisionTransformer fails in evaluation mode on inputs [2, 3, 32, 32] of")
    assert line.endswith("so choose another network or size of images")


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(ConfigError, match=r"^student.net.in_channels must be 3 for dataset=synthetic, found 1$"):
        prepare(compose([*TIMM, "method=supervised", "student=resnet8", "student.net.in_channels=1"]))


def test_the_trial_needs_no_memory_for_weights():
    node = {
        "_target_": input_size.TIMM,
        "name": "vit_giant_patch14_224",  # 1,012 million parameters
        "pretrained": False,
        "num_classes": 4,
        "in_channels": 3,
        "drop_rate": 0.0,
        "drop_path_rate": 0.0,
        "taps": None,
        "options": {"depth": 2},
    }
    assert not input_size._works(node, {}, (3, 28, 28))
    assert input_size._works(node, {"img_size": 28}, (3, 28, 28))
