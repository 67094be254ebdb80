"""Two runs are the same run exactly where their experiment is the same."""

import copy
import random
import subprocess
import sys

import pytest
from door import SMALL

from kdx.config.compose import compose
from kdx.config.identity import NOT_IDENTITY, differences, identity
from kdx.runs.prepare import examine

BASE = (*SMALL, "teacher.checkpoint=auto")


@pytest.fixture(scope="module")
def config() -> dict:
    return examine(compose(BASE)).plain()


@pytest.fixture(scope="module")
def foreign(config: dict) -> dict:
    """A run with unlabelled images of another data set, which have a place of their own."""
    out = copy.deepcopy(config)
    for node in (out["transfer"], out["teacher"]["training"]["transfer"]):
        node["unlabelled"] = {"path": "a", "dataset": {"name": "other", "root": "a", "download": True, "verify": True}}
    for node in (out["dataset"], out["teacher"]["training"]["dataset"]):  # as data sets made from others have them
        node |= {"source": {"name": "first"}, "photos": {"name": "second"}}
    return out


def changed(config: dict, path: str, value: object) -> dict:
    out = copy.deepcopy(config)
    *parents, last = path.split(".")
    node = out
    for key in parents:
        node = node[key]
    assert last in node or "dataset." in path  # made-up data has no place
    node[last] = value
    return out


def test_it_is_sixteen_hexadecimal_digits(config):
    assert len(identity(config)) == 16
    int(identity(config), 16)


@pytest.mark.parametrize(
    "path", [p for p in NOT_IDENTITY if p not in ("paths", "logger", "choices", "teacher.expected_top1")]
)
def test_where_and_how_it_is_run_makes_no_difference(foreign, path):
    assert identity(changed(foreign, path, "elsewhere")) == identity(foreign)
    if path.split(".")[0] not in ("teacher", "student"):
        assert identity(changed(foreign, f"teacher.training.{path}", "elsewhere")) == identity(foreign)


@pytest.mark.parametrize("node", ["paths", "logger", "choices"])
def test_neither_do_whole_nodes_of_this_kind(config, node):
    assert identity(changed(config, node, {"anything": 1})) == identity(config)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 9),
        ("data_seed", 9),
        ("method.temperature", 9.0),
        ("method.weights.kd", 0.5),
        ("student.net.hidden", [6, 7]),
        ("student.sha256", "0"),
        ("teacher.sha256", "0"),
        ("teacher.seed", 9),
        ("teacher.training.optimizer.lr", 9.0),
        ("dataset.fraction", 0.5),
        ("dataset.fraction_order", "source"),
        ("dataset.mean", [0.4]),
        ("augmentation.flip", 0.1),
        ("optimizer.lr", 9.0),
        ("schedule.gamma", 0.2),
        ("trainer.precision", "bf16"),
        ("trainer.batch_size", 9),
        ("trainer.duration.steps", 3),
        ("update.accumulate", 2),
        ("evals.test.every", 9.0),
    ],
)
def test_everything_that_changes_a_number_makes_another_run(config, path, value):
    assert identity(changed(config, path, value)) != identity(config)


@pytest.mark.parametrize("path", ["method.temperature", "dataset.fraction", "method.weights.kd", "dataset.mean"])
def test_a_whole_number_is_the_same_however_it_is_typed(config, path):
    typed = [1, 1.0] if path != "dataset.mean" else [[1], [1.0]]
    one, other = (identity(changed(config, path, value)) for value in typed)
    assert one == other != identity(changed(config, path, True))


def test_of_an_absolute_path_the_last_part_counts(config):
    def at(path: str) -> str:
        return identity(changed(config, "dataset.extra", path))

    assert at("/a/b/weights.pt") == at("/c/weights.pt") == at("~/weights.pt") == at("/c//weights.pt")
    assert at("/a/folder") == at("/b/folder/") != at("/a/other")
    assert len({at("weights.pt"), at("/a/other.pt"), at("b/weights.pt")}) == 3
    nested = [identity(changed(config, "dataset.extra", [{"file": f"/{place}/w.pt"}])) for place in "ab"]
    assert nested[0] == nested[1]


def test_the_order_of_overrides_makes_no_difference(config):
    for seed in range(3):
        order = list(BASE)
        random.Random(seed).shuffle(order)
        assert identity(examine(compose(order))) == identity(config)


def test_another_process_says_the_same(config):
    code = (
        "import sys; from kdx.config.compose import compose; from kdx.config.identity import identity; "
        "from kdx.runs.prepare import examine; print(identity(examine(compose(sys.argv[1:]))))"
    )
    done = subprocess.run([sys.executable, "-c", code, *BASE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == identity(config)


def test_differences_are_paths_with_both_values(config):
    other = changed(changed(config, "seed", 1), "method.weights.kd", 0.5)
    assert differences(config, other) == {"seed": (0, 1), "method.weights.kd": (0.9, 0.5)}
    assert differences(config, config) == {}
