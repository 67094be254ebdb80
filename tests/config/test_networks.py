"""Networks that a config names in a list."""

import re

import pytest
from door import SMALL

from kdx.config.compose import ConfigError, compose
from kdx.config.identity import identity
from kdx.config.networks import network_node
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.runs.build import build_network
from kdx.runs.prepare import examine, prepare

DATASET = {"num_classes": 7, "input_shape": [3, 16, 16]}
OWN = {"_target_": "kdx.models.small.MLP", "hidden": [9]}


def test_words_become_whole_networks():
    assert network_node("same", OWN, DATASET) == OWN
    node = network_node("resnet8", OWN, DATASET)
    assert (node["depth"], node["num_classes"], node["in_channels"]) == (8, 7, 3)
    build_network(node, 0)
    changed = network_node({"model": "resnet8", "widths": [4, 4, 8, 8]}, OWN, DATASET)
    assert changed == {**node, "widths": [4, 4, 8, 8]}
    assert network_node({"model": "same", "hidden": [5]}, OWN, DATASET) == {**OWN, "hidden": [5]}
    assert network_node(changed, OWN, DATASET) is changed


def test_what_is_no_network_is_reported():
    with pytest.raises(UserError, match="no network 'resnet9'; did you mean 'resnet8'"):
        network_node("resnet9", OWN, DATASET)
    with pytest.raises(UserError, match="under the key 'model'; found the keys net, widths"):
        network_node({"net": "resnet8", "widths": [1]}, OWN, DATASET)
    with pytest.raises(UserError, match="name"):
        network_node("timm", OWN, DATASET)
    assert network_node({"model": "timm", "name": "resnet18"}, OWN, DATASET)["name"] == "resnet18"


def prepared(*overrides: str) -> RunConfig:
    return prepare(compose([*SMALL, "method=dml", *overrides]))


def test_a_run_holds_its_peers_whole_and_is_named_by_them():
    one = prepared("method.peers=[same,mlp_30]")
    assert one.method["peers"][0] == one.student.net
    assert one.method["peers"][1]["hidden"] == [30, 30]
    assert one.teacher is None
    assert identity(one) == identity(prepared("method.peers=[same,{model: mlp_30}]"))
    assert identity(one) != identity(prepared("method.peers=[same,mlp_400]"))
    assert identity(one) != identity(prepared("method.peers=[same]"))


def test_peers_are_measured_only_where_there_are_any():
    assert "peers" in prepared().evals
    assert "peers" not in prepare(compose([*SMALL, "method=supervised"])).evals


@pytest.mark.parametrize(
    "override, told",
    [
        ("method.peers=[same,mlp30]", "method.peers[1]: there is no network 'mlp30'; did you mean 'mlp_30'?"),
        ("method.peers=[]", "mutual learning needs at least one peer, such as method.peers=[same]"),
        ("method.peers=3", "method.peers: must be a list, found 3"),
        ("method.peers=[{model: mlp_30, hiden: [3]}]", "unknown key 'method.peers[0].hiden'; did you mean 'hidden'?"),
        ("method.peers=[{model: mlp_30, num_classes: 3}]", "peer1 has 3 classes and the student"),
        ("method.exchange.temperature=0", "method.exchange.temperature: must be greater than 0"),
        ("update=turns method.shared=stage1", "choose update=joint"),
        ("method.scale_trunk=true", "scale_trunk divides the gradient of shared stages, but method.shared is null"),
        ("+update.optimizers.pear1=${optimizer}", "there is no party 'pear1'; did you mean 'peer1'?"),
    ],
)
def test_mistakes_are_reported_before_anything_loads(override: str, told: str):
    with pytest.raises(ConfigError) as error:
        prepared(*re.split(r" (?=method)", override))
    assert told in str(error.value)


def test_the_method_chooses_how_steps_are_taken_unless_told():
    assert examine(compose(["method=dml"])).choices["update"] == "turns"
    assert examine(compose(["method=dml", "update=peers"])).choices["update"] == "peers"
    assert examine(compose(["update=joint", "method=dml"])).choices["update"] == "joint"
    assert examine(compose(["method=supervised"])).choices["update"] == "joint"
