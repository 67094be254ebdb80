"""Composition: sweeps cut into points, values that are missing, suggestions."""

import itertools

import pytest
from hydra.core.global_hydra import GlobalHydra

from kdx.config.compose import ConfigError, compose, points
from kdx.config.layout import config_dir, options


@pytest.mark.parametrize(
    "axes",
    [
        {"seed": [0, 1, 2]},
        {"method": ["kd", "dkd"], "seed": [0, 1, 2], "optimizer.lr": [0.1]},
        {"a": [1, 2], "b": [3, 4], "c": [5, 6], "d": [7, 8, 9]},
    ],
)
def test_points_use_every_value_of_every_axis_and_no_more_than_needed(axes):
    found = points([f"{key}={','.join(map(str, values))}" for key, values in axes.items()])
    used = set(itertools.chain.from_iterable(found))
    assert used == {f"{key}={value}" for key, values in axes.items() for value in values}
    assert len(found) == 1 + sum(len(values) - 1 for values in axes.values())
    for point in found:
        assert [o.split("=")[0] for o in point] == list(axes)  # the order of overrides matters to Hydra


def test_points_read_every_kind_of_sweep():
    assert points(["seed=range(0,3)"]) == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert points(["seed=choice(4,7)"]) == [["seed=4"], ["seed=7"]]
    assert points(["method=glob(kd*)"]) == [[f"method={n}"] for n in options("method") if n.startswith("kd")]
    assert {p[0] for p in points(["student=glob(*)"])} == {f"student={n}" for n in options("student")}


def test_what_is_no_sweep_stays_as_it_was_typed():
    typed = ["student.net.hidden=[4,5]", "method.temperature='2'", "teacher.recipe=['optimizer.lr=1']", "~logger"]
    assert points(typed) == [typed]


@pytest.mark.parametrize("overrides", [["seed=interval(0,1)"], ["method=glob(zz*)"], ["seed", "x=[1"]])
def test_points_tell_what_cannot_be_swept(overrides):
    with pytest.raises(ConfigError):
        points(overrides)


def test_every_network_is_an_option_of_both_roles_and_their_base_of_none():
    models = {p.stem for p in (config_dir() / "model").glob("*.yaml")}
    for role in ("student", "teacher"):
        assert models <= set(options(role))
        assert "base" not in options(role)


def test_no_interpolation_is_left_and_where_they_were_is_known():
    composed = compose(["dataset=cifar100"])

    def leaves(node):
        if isinstance(node, dict):
            yield from itertools.chain.from_iterable(map(leaves, node.values()))
        else:
            yield node

    assert not [v for v in leaves(composed.config) if isinstance(v, str) and "${" in v]
    assert "hydra" not in composed.config
    assert {"student.net.num_classes", "data_seed", "method.terms.kd.temperature"} <= composed.interpolated
    assert composed.choices["dataset"] == "cifar100"
    assert composed.choices["recipe"] == "cifar100"


def test_composing_leaves_hydra_as_it_was():
    GlobalHydra.instance().clear()
    compose([])
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(ConfigError):
        compose(["typo=1"])
    assert not GlobalHydra.instance().is_initialized()


def test_a_suggestion_knows_the_options_that_were_chosen():
    with pytest.raises(ConfigError) as error:
        compose(["optimizer=sgd", "optimizer.momentun=0.5"])  # the default optimiser has no momentum
    assert error.value.problems == ["unknown key 'optimizer.momentun'; did you mean 'optimizer.momentum'?"]


def test_a_misspelt_option_hides_no_further_mistake_and_makes_none_up():
    with pytest.raises(ConfigError) as error:
        compose(["student=resnet20x", "student.net.depth=8", "student.net.width=3"])
    assert error.value.problems == [
        "unknown student 'resnet20x'; did you mean 'resnet20'?",
        "unknown key 'student.net.width'; did you mean 'student.net.widths'?",
    ]


def test_what_is_left_of_a_wrong_command_composes():
    with pytest.raises(ConfigError) as error:
        compose(["dataset=cifar1000", "typo=1", "seed=3"])
    assert error.value.rest is not None
    composed = compose(error.value.rest)
    assert composed.choices["dataset"] == "cifar100"
    assert composed.config["seed"] == 3


def test_an_option_like_no_other_leaves_nothing_to_compose():
    with pytest.raises(ConfigError) as error:
        compose(["dataset=zzzzz", "student.net.depth=8"])  # whether depth exists is not known
    assert len(error.value.problems) == 1
    assert error.value.rest is None


def test_every_missing_value_is_named_by_its_full_path():
    with pytest.raises(ConfigError) as error:
        compose(["dataset=imagefolder", "student=timm"])
    assert [p.split()[0] for p in error.value.problems] == ["dataset.num_classes", "dataset.folder", "student.net.name"]
