"""Each method's weights, temperatures, radii and switches, against a table of their published values."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdx.config.layout import config_dir, options

TABLE = Path(__file__).with_name("published_settings.yaml")


@cache
def table() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(TABLE.read_text())


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def settings(stem: str) -> dict[str, Any]:
    """The numbers and switches of a method's file. Roles follow the networks, interpolations another setting."""
    node = yaml.safe_load((config_dir() / "method" / f"{stem}.yaml").read_text())
    node.pop("defaults", None)
    found = dict(leaves(node))
    left_out = {
        path
        for path, value in found.items()
        if path.endswith(("_target_", "role", "roles"))
        or ".roles." in path
        or path == "peers"
        # no smoothing is written in every file; a smoothed one has to be listed
        or ("terms." in path and path.endswith("label_smoothing") and value == 0)
        or (isinstance(value, str) and value.startswith("${"))
    }
    return {path: value for path, value in found.items() if path not in left_out}


def number(value: Any) -> Any:
    """A value of the table; a product or quotient stands for its number."""
    if not isinstance(value, str) or not value[:1].isdigit():
        return value
    for sign in "*/":
        if sign in value:
            left, right = map(float, value.split(sign))
            return left * right if sign == "*" else left / right
    return float(value)


def agrees(found: Any, printed: Any) -> bool:
    printed = number(printed)
    if isinstance(printed, float | int) and not isinstance(printed, bool):
        return not isinstance(found, bool) and found == pytest.approx(printed, rel=1e-12)
    return found == printed and type(found) is type(printed)


def test_every_method_is_in_the_table():
    assert set(table()) == set(options("method")), f"add the method's settings and their source to {TABLE}"
    assert all(isinstance(of["source"], str) and len(of["source"]) > 8 for of in table().values())


@pytest.mark.parametrize("stem", options("method"))
def test_its_settings_are_the_published_ones(stem: str):
    printed = {path: value for path, value in table()[stem].items() if path != "source"}
    found = settings(stem)
    assert found.keys() == printed.keys(), f"list each setting of configs/method/{stem}.yaml in {TABLE}"
    wrong = {path: (found[path], value) for path, value in printed.items() if not agrees(found[path], value)}
    assert not wrong, f"configs/method/{stem}.yaml differs from {TABLE}, which follows {table()[stem]['source']}"


# the CIFAR-100 settings that yzd-v/cls_KD publishes beside those of ImageNet, res34_distill_res18_cifar.py
CLS_KD = {
    "mgd": {"method.weights.mgd": 0.0012},
    "nkd": {"method.temperature": 3, "method.terms.nkd.nontarget_weight": 3.5},
    "srrl": {"method.terms.srrl.logit_weight": 5},
}


@pytest.mark.parametrize("stem", CLS_KD)
def test_the_files_name_their_cifar_100_settings(stem: str):
    text = (config_dir() / "method" / f"{stem}.yaml").read_text()
    (line,) = (line for line in text.splitlines() if "cls_KD" in line and "CIFAR-100" in line)
    named = dict(word.split("=") for word in line.split() if word.startswith("method."))
    assert {key: float(value) for key, value in named.items()} == CLS_KD[stem]
    known = {f"method.{path}" for path, _ in leaves(yaml.safe_load(text))}
    assert named.keys() <= known
