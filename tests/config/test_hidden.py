"""A key that an option leaves open must be given, also where its base says null."""

import pytest
import yaml

from kdx.config.compose import ConfigError, compose
from kdx.config.layout import add_config_dir, config_dir

LEFT_OPEN = sorted(
    (path.parent.name, path.stem)
    for path in config_dir().glob("*/*.yaml")
    if any(value == "???" for value in str(yaml.safe_load(path.read_text())).split("'"))
    and path.parent.name not in ("model", "study")
)


def test_there_are_options_to_look_at():
    assert ("transfer", "specialist") in LEFT_OPEN and ("dataset", "imagefolder") in LEFT_OPEN


@pytest.mark.parametrize("group, option", LEFT_OPEN)
def test_every_option_asks_for_what_it_leaves_open(group: str, option: str):
    body = yaml.safe_load((config_dir() / group / f"{option}.yaml").read_text())
    wanted = [f"{group}.{key}" for key, value in body.items() if value == "???"]
    with pytest.raises(ConfigError) as found:
        compose([f"{group}={option}"])
    for key in wanted:
        assert any(key in line for line in found.value.problems), key


def test_a_specialist_needs_its_classes():
    for given in ([], ["transfer.special_classes=null"]):
        with pytest.raises(ConfigError, match="transfer.special_classes has no value yet; give one"):
            compose(["transfer=specialist", *given])
    classes = compose(["transfer=specialist", "transfer.special_classes=[3,8]"])
    assert classes.config["transfer"]["special_classes"] == [3, 8]


def test_a_users_own_option_is_held_to_it_through_its_bases(tmp_path, monkeypatch):
    monkeypatch.setenv("KDX_CONFIGS", "")
    (tmp_path / "transfer").mkdir()
    for name, text in {
        "open": "defaults: [train]\nonly_classes: ???\n",
        "child": "defaults: [open]\nheld_out: 0.5\n",
        "closed": "defaults: [open, _self_]\nonly_classes: null\n",
        "given": "defaults: [open]\nonly_classes: [1]\n",
    }.items():
        (tmp_path / "transfer" / f"{name}.yaml").write_text(text)
    add_config_dir(str(tmp_path))
    for name in ("open", "child"):
        with pytest.raises(ConfigError, match="transfer.only_classes has no value yet"):
            compose([f"transfer={name}"])
        assert compose([f"transfer={name}", "transfer.only_classes=[0]"]).config["transfer"]["only_classes"] == [0]
    assert compose(["transfer=closed"]).config["transfer"]["only_classes"] is None
    assert compose(["transfer=given"]).config["transfer"]["only_classes"] == [1]
