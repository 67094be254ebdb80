"""Configs in a run's folder: the same text as OmegaConf writes, which reads them back."""

from omegaconf import OmegaConf

from kdx.runs.results import write_yaml

TRICKY = {
    "texts": [
        "1e-3",
        "on",
        "null",
        "~",
        "0x1f",
        "a: b",
        "# no comment",
        "",
        " ",
        "1_000",
        "nan",
        "${seed}",
        "é",
        "x" * 300,
    ],
    "long": "a sentence of many words " * 12,
    "lines": "first\nsecond\n",
    "numbers": {"small": 1e-05, "large": 1e22, "whole": 4.0, "int": -3, "infinite": float("inf")},
    "none": None,
    "flags": [True, False],
    "empty": {"list": [], "dict": {}},
    "nested": [{"a": [1, {"b": "c"}]}],
}


def test_a_config_is_written_as_omegaconf_writes_it(tmp_path):
    write_yaml(tmp_path / "config.yaml", TRICKY)
    assert (tmp_path / "config.yaml").read_text() == OmegaConf.to_yaml(OmegaConf.create(TRICKY))
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml")) == TRICKY
