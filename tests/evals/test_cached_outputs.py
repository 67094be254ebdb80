"""Asking a frozen network once gives what asking it each time gives, and asks once."""

import gc
import weakref

import pytest
import torch
from torch import nn

import kdx.evals.cached_outputs as asked
from kdx.core.outputs import Outputs
from kdx.data.loaders import EvalLoader
from kdx.data.sets import TensorSet
from kdx.evals.cached_outputs import CachedOutputs
from kdx.evals.fidelity import Fidelity
from kdx.evals.predictions import predictions
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import Classes, image_classes

CPU = torch.device("cpu")
BATCHES = 5  # of 23 examples, the last of 3


class Net(nn.Module):
    """Two stages; counts how often it is run."""

    def __init__(self, seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> Outputs:
        self.runs += 1
        maps = self.conv(x).relu()
        pooled = maps.mean((2, 3))
        return Outputs(self.head(pooled), {"stage1": maps, "stage2": 2 * maps, "pooled": pooled})


def loader() -> EvalLoader:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (23, 8, 8, 3), generator=g, dtype=torch.uint8)
    labels = torch.randint(4, (23,), generator=g)
    spec = image_classes(4, (3, 8, 8), 23, (0.5,) * 3, (0.25,) * 3)
    return EvalLoader(TensorSet(images, labels, 255), spec, 5, 0, channels_last=True)


def teacher() -> Frozen:
    return Frozen(Net(0), None, None)


def measured(split: EvalLoader, student: nn.Module, net: nn.Module, roles: list[str] | None = None) -> dict[str, float]:
    return Fidelity(
        loaders={"test": split}, device=CPU, task=Classes(4), split="test", cka_roles=roles, every=None
    ).run({"student": student.eval(), "teacher": net})


def test_all_that_measure_ask_once_and_get_the_same_bits():
    split, net = loader(), teacher()
    for student in (Net(1), Net(2)):
        assert measured(split, student, net) == measured(loader(), student, teacher())
        assert measured(split, student, net, []) == measured(loader(), student, teacher(), [])
    found, expected = (
        predictions({"teacher": n}, s, CPU, Classes(4)) for s, n in ((split, net), (loader(), teacher()))
    )
    assert all(found[name].equal(expected[name]) for name in expected)
    assert net.net.runs == BATCHES


def test_a_feature_that_was_not_wanted_yet_is_asked_for():
    split, net = loader(), teacher()
    for roles, runs in ((["pooled"], 1), (["stage1", "last"], 2), (["pooled", "stage1"], 2), (None, 3), (["last"], 3)):
        assert measured(split, Net(1), net, roles) == measured(loader(), Net(1), teacher(), roles)
        assert net.net.runs == runs * BATCHES


def test_another_split_and_another_network_have_answers_of_their_own():
    first, second, net = loader(), loader(), teacher()
    for split in (first, second, first):
        measured(split, Net(1), net)
    assert net.net.runs == 2 * BATCHES
    other = Frozen(Net(3), None, None)
    assert measured(first, Net(1), other) == measured(loader(), Net(1), Frozen(Net(3), None, None))


@pytest.mark.parametrize(
    "change",
    [
        lambda net: nn.init.constant_(net.head.weight, 0.5),
        lambda net: net.load_state_dict(Net(5).state_dict()),
        lambda net: net.to(torch.float64).to(torch.bfloat16).to(torch.float32),
    ],
    ids=["in place", "loaded", "rounded"],
)
def test_a_network_that_changed_is_asked_anew(change):
    split, net = loader(), teacher()
    before = measured(split, Net(1), net)
    change(net.net)
    fresh = teacher()
    change(fresh.net)
    after = measured(split, Net(1), net)
    assert after == measured(loader(), Net(1), fresh) != before
    assert net.net.runs == 2 * BATCHES


def test_a_network_that_learns_is_run_each_time():
    split, net = loader(), Net(0).eval()
    for times in (1, 2):
        measured(split, Net(1), net)
        assert net.runs == times * BATCHES


def test_what_does_not_fit_is_asked_each_time(monkeypatch):
    # logits of 4 numbers, and vectors of 6, 6 and 6 in float64: 160 bytes an example, 800 a batch but for the last
    monkeypatch.setattr(asked, "LIMIT", 2 * 800 + 100)
    split, net = loader(), teacher()
    for times in (0, 1, 2):
        assert measured(split, Net(1), net) == measured(loader(), Net(1), teacher())
        assert net.net.runs == BATCHES + times * (BATCHES - 2)


def test_nothing_outlives_network_and_split():
    split, net = loader(), teacher()
    measured(split, Net(1), net)
    memory = weakref.ref(asked._memories[net])
    (kept,) = asked._memories[net].splits.values()
    assert len(kept) == BATCHES
    del split
    gc.collect()
    assert not len(asked._memories[net].splits)
    del net
    gc.collect()
    assert memory() is None


def test_what_is_said_of_a_batch():
    split, net = loader(), teacher()
    ask = CachedOutputs(net, split, Classes(4))
    for step, batch in enumerate(split):
        full = net(batch.inputs)
        said = ask(step, batch.inputs, lambda names: sorted(names))
        assert said.logits.equal(full.logits)
        for role, feature in full.features.items():
            mean = feature.double().mean((2, 3)) if feature.ndim == 4 else feature.double()
            assert said.features[role].equal(mean)
