"""Which values of a config make another run, asked of every one of them."""

import copy
from typing import Any

import pytest

from kdx.config.identity import identity

PLACES = {
    "fresh",
    "dataset.root",
    "dataset.download",
    "dataset.verify",
    "trainer.device",
    "trainer.threads",
    "trainer.num_workers",
    "trainer.checkpoint_seconds",
    "trainer.cuda_graph",
    "trainer.log_steps",
    "trainer.eval_batch_size",
    "teacher.recipe",
    "teacher.experiment",
    "student.experiment",
    "reuse",
    "teacher.checkpoint",
    "teacher.expected",
    "teacher.tolerance",
    "teacher.shard",
    "teacher.max_kl",
    "teacher.min_agreement",
    "student.checkpoint",
}
GROUPS = ("paths", "logger", "choices")


def leaves(node: Any, path: tuple = ()) -> list[tuple]:
    if isinstance(node, dict) and node:
        return [leaf for key, value in node.items() for leaf in leaves(value, (*path, key))]
    return [path]


def changed(config: dict, path: tuple) -> dict:
    config = copy.deepcopy(config)
    *parents, last = path
    node = config
    for key in parents:
        node = node[key]
    node[last] = {"another": 1} if node[last] == {} else [node[last], "another"]
    return config


@pytest.mark.parametrize("overrides", [(), ("method=supervised",), ("augmentation=strong", "method=vid")])
def test_every_value_but_of_place_and_machine_is_identity(tiny, overrides: tuple[str, ...]):
    config = tiny(*overrides).plain()
    before = identity(config)
    paths = leaves(config)
    assert len(paths) > 60
    for path in paths:
        own = ".".join(map(str, path[2:] if path[:2] == ("teacher", "training") and len(path) > 2 else path))
        aside = own in PLACES or own.split(".")[0] in GROUPS
        assert (identity(changed(config, path)) == before) == aside, path


def test_it_is_sixteen_hex_digits_of_the_values_not_of_their_order(tiny):
    config = tiny().plain()
    turned = dict(reversed(config.items()))
    turned["trainer"] = dict(reversed(config["trainer"].items()))
    assert identity(turned) == identity(config) and int(identity(config), 16) >= 0 and len(identity(config)) == 16


# what changes a student leaves its teacher alone
@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data_seed=7",
        "method=dkd",
        "method.temperature=2.0",
        "augmentation=none",
        "optimizer.lr=0.2",
        "trainer.duration.steps=4",
        "trainer.ema=0.5",
        "trainer.batch_size=16",
        "dataset.fraction=0.5",
        "dataset.train_subset=5",
        "student.net.widths=[4,4,4,4]",
        "evals.test.every=null",
        "teacher.expected=0.0",
        "logger=none",
        "trainer.device=auto",
    ],
)
def test_a_students_knobs_keep_the_teacher(tiny, override: str):
    assert identity(tiny(override).teacher.training) == identity(tiny().teacher.training)


@pytest.mark.parametrize(
    "override",
    [
        "teacher.seed=1",
        "teacher.recipe=['trainer.batch_size=8']",
        "teacher.net.widths=[4,4,4,4]",
        "dataset.noise=0.5",
        "dataset.seed=1",
        "dataset.val_fraction=0.2",  # what a student is chosen on must be new to its teacher
    ],
)
def test_another_teacher_is_another_run(tiny, override: str):
    mine, other = tiny(), tiny(override)
    assert identity(other.teacher.training) != identity(mine.teacher.training)
    assert identity(other) != identity(mine)
