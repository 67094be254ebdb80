"""A user's own groups beside the shipped ones: found by every command, in every process, and never shadowed."""

import os

import pytest
import yaml

from kdx.config.compose import compose
from kdx.config.layout import OWN, config_dir, config_dirs, config_file, options, take_config_dirs
from kdx.core.errors import UserError
from kdx.runs.prepare import prepare


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a method and a network, and the module that the method names."""
    monkeypatch.delenv(OWN, raising=False)
    monkeypatch.setenv(OWN, "")  # so that what a test adds is gone after it
    method = yaml.safe_load((config_dir() / "method" / "kd.yaml").read_text())
    term = method["terms"]["kd"]["_target_"].rpartition(".")[2]
    (tmp_path / "own_term.py").write_text(f"from kdx.losses.logits.kd import {term}\n\nclass Mine({term}):\n    pass\n")
    method["terms"]["kd"]["_target_"] = "own_term.Mine"
    for group, name, content in (
        ("method", "mine", method),
        ("model", "mlp_own", yaml.safe_load((config_dir() / "model" / "mlp_30.yaml").read_text())),
    ):
        (tmp_path / "configs" / group).mkdir(parents=True)
        (tmp_path / "configs" / group / f"{name}.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "configs"


@pytest.mark.parametrize("form", ["--config-dir={}", "--config-dir {}", "-cd {}"])
def test_own_methods_and_networks_compose_and_build_like_shipped_ones(own, form):
    rest = take_config_dirs([*form.format(own).split(), "seed=3"])
    assert rest == ["seed=3"]
    config = prepare(compose([*rest, "method=mine", "student=mlp_own"]))
    assert config.method["terms"]["kd"]["_target_"] == "own_term.Mine"
    assert config.choices["student"] == "mlp_own"


def test_own_options_are_listed_and_found_in_processes_started_from_here(own):
    assert "mine" not in options("method")
    take_config_dirs([f"--config-dir={own}"])
    assert "mine" in options("method") and "mlp_own" in options("teacher") and "kd" in options("method")
    assert config_file("method", "mine") == own / "method" / "mine.yaml"
    assert str(own) in os.environ[OWN]


def test_a_folder_that_is_given_in_two_ways_counts_once(own):
    take_config_dirs([f"--config-dir={own}"])
    take_config_dirs([f"--config-dir={own}"])
    assert config_dirs() == [config_dir(), own]


def test_a_folder_that_is_not_there_or_shadows_a_shipped_file_is_refused(own, tmp_path):
    with pytest.raises(UserError, match="is not a folder; config folders hold groups"):
        take_config_dirs([f"--config-dir={tmp_path / 'nothing'}"])
    with pytest.raises(UserError, match="needs a folder"):
        take_config_dirs(["--config-dir"])
    (own / "method" / "kd.yaml").write_text("{}")
    os.environ[OWN] = ""
    with pytest.raises(UserError, match="has the same name as .*; rename it"):
        take_config_dirs([f"--config-dir={own}"])
