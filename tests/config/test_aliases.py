"""Configs of older versions name classes that have moved since; they are read as if they had the names of today."""

from pathlib import Path

import pytest
import yaml

from kdx.config import aliases
from kdx.config.aliases import MOVED, current_target, frozen_target, with_current_targets
from kdx.config.identity import identity
from kdx.config.past import read_config
from kdx.config.validate import locate

PAST = Path(__file__).parent / "past"
OLD = (PAST / "targets.txt").read_text().split()  # each `_target_` in the YAML files of 0.1, before modules had rooms
CONFIG = PAST / "config.yaml"  # of a finished run of that time


def targets(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [name for value in node.values() for name in targets(value)]
    return [name for item in node for name in targets(item)] if isinstance(node, list) else []


@pytest.mark.parametrize("old", OLD)
def test_each_name_of_old_is_found(old: str):
    assert callable(locate(current_target(old)))


def test_a_name_of_today_stays():
    for old in OLD:
        assert current_target(current_target(old)) == current_target(old)
    assert current_target("torch.optim.SGD") == "torch.optim.SGD"


def test_no_module_moves_twice():
    olds = [f"{old}.{stem.split('>')[0]}" for old, _, stems in MOVED for stem in stems.split()]
    assert len(olds) == len(set(olds))


def test_the_config_of_an_old_run_is_read_in_names_of_today():
    text = yaml.safe_load(CONFIG.read_text())
    config = read_config(CONFIG)
    assert any(current_target(name) != name for name in targets(text))  # or this test would show nothing
    assert len(targets(config)) == len(targets(text)) > 10
    for name in targets(config):
        assert callable(locate(name))
    assert config["role"] == config["teacher"]["training"]["role"] == "student"


def test_an_old_name_on_a_command_line_gives_the_new_one():
    with pytest.raises(ValueError, match=r"was renamed; write kdx\.losses\.logits\.dkd\.DKD"):
        locate("kdx.losses.dkd.DKD")


def test_a_rename_after_the_freeze_changes_no_identity(tiny, monkeypatch):
    config = tiny("method=dml", "method.peers=[same]", student=("student=resnet8",)).plain()
    before = identity(config)
    renames = {"kdx.losses.online.dml": "kdx.losses.peers.mutual", "kdx.models.cifar.resnet": "kdx.models.residual"}
    monkeypatch.setattr(aliases, "RENAMED", renames)
    renamed = with_current_targets(config)
    assert renamed != config and identity(renamed) == before
    assert all(frozen_target(name) in targets(config) for name in targets(renamed))
    monkeypatch.setattr(aliases, "RENAMED", {})
    assert identity(renamed) != before
