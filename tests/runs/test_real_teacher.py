"""A published checkpoint of a real teacher, where KDX_DATA and KDX_TEACHERS point at data and weights."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kdx.config.compose import compose
from kdx.core.errors import UserError
from kdx.runs.build import build_light, build_loaders
from kdx.runs.prepare import prepare
from kdx.runs.teacher import load_teacher

DATA = Path(os.environ.get("KDX_DATA", "/nowhere"))
WEIGHTS = Path(os.environ.get("KDX_TEACHERS", "/nowhere")) / "cifar100_resnet56.safetensors"


@pytest.mark.slow  # resnet56 over 10,000 test images, twice
@pytest.mark.skipif(not (DATA / "cifar-100-python").is_dir() or not WEIGHTS.exists(), reason="no data or no teacher")
def test_the_teacher_reaches_what_its_card_says(tmp_path):
    card = 0.6999  # evaluated under bf16 there
    overrides = [
        "dataset=cifar100",
        "dataset.verify=false",
        "teacher=resnet56",
        f"teacher.checkpoint='{WEIGHTS}'",
        "logger=none",
    ]
    overrides += [f"paths.data='{DATA}'", f"paths.outputs={tmp_path}", "trainer.device=cpu"]
    config = prepare(compose([*overrides, f"teacher.expected={card}", "teacher.tolerance=0.002"]))
    light = build_light(config)
    loaders = build_loaders(config, light)
    facts = load_teacher(config, WEIGHTS, loaders, light.device).facts
    assert facts["test/top1"] == pytest.approx(card, abs=0.002)
    assert facts["sha256"] == "5c3f17cae7a6e414a858e06ce21c47608c60243ab6f709388997144c1d4e55db"
    config = replace(config, teacher=replace(config.teacher, expected=0.7234))  # of the literature's 240 epochs
    with pytest.raises(UserError, match="teacher.expected is 0.7234"):
        load_teacher(config, WEIGHTS, loaders, light.device)
