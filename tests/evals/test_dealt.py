"""Several processes that measure a share of a split each, against one that measures all of it."""

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.evals import base, predictions
from kdx.evals.fidelity import Fidelity
from kdx.evals.gaps import Gaps
from kdx.evals.task_metrics import TaskMetrics
from kdx.tasks.classes import Classes

PLACE = torch.device("cpu")
TASK = Classes(7)


class Net(nn.Module):
    """Logits and features that differ from seed to seed."""

    def __init__(self, seed: int):
        super().__init__()
        self.seen = 0
        self.weight = torch.randn(6, 7, generator=torch.Generator().manual_seed(seed))

    def forward(self, inputs):
        self.seen += len(inputs)
        features = inputs @ self.weight
        return Outputs(features[:, :6], {"pooled": features.relu()})


def batches(sizes: list[int]) -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    each = [(torch.randn(n, 6, generator=g), torch.randint(6, (n,), generator=g)) for n in sizes]
    return [Batch.of_classes(inputs, labels, torch.arange(len(labels))) for inputs, labels in each]


def hands(monkeypatch, size: int, measure):
    """The leader's value of `measure`; the processes are simulated one after the other, the leader last."""
    told = []

    def gathered(value):
        told.append(value)
        return [value, *reversed(told[:-1])]

    monkeypatch.setattr(base, "world_size", lambda: size)
    monkeypatch.setattr(base, "all_gather_values", gathered)
    monkeypatch.setattr(predictions, "all_gather_values", gathered)
    found = None
    for rank in reversed(range(size)):
        monkeypatch.setattr(base, "rank", lambda rank=rank: rank)
        # other processes receive the leader's value
        monkeypatch.setattr(base, "is_leader", lambda rank=rank: rank == 0)
        monkeypatch.setattr(base, "from_leader", lambda values, failed: values or {})
        monkeypatch.setattr(predictions, "_in_order", in_order if rank == 0 else lambda _: {})
        found = measure()
    return found


in_order = predictions._in_order


@pytest.mark.parametrize("sizes", [[5, 5, 5, 5, 2], [4, 3], [3]])  # also fewer batches than processes
@pytest.mark.parametrize("size", [2, 3])
def test_the_sum_of_the_shares_is_the_whole(monkeypatch, sizes: list[int], size: int):
    data = {"test": batches(sizes)}
    evaluators = [
        TaskMetrics(loaders=data, device=PLACE, task=TASK, split="test", model="student", every=None),
        Fidelity(loaders=data, device=PLACE, task=TASK, split="test", cka_roles=None, every=None),
        Gaps(loaders=data, device=PLACE, task=TASK, split="test", role="pooled", every=None),
    ]

    def all_of_it():
        nets = {"student": Net(1), "teacher": Net(2)}
        values = {k: v for evaluator in evaluators for k, v in evaluator.run(nets).items()}
        return values, predictions.predictions(nets, data["test"], PLACE, TASK)

    alone, kept = all_of_it()
    asked = [Net(1) for _ in evaluators]
    for evaluator, net in zip(evaluators, asked, strict=True):
        merged = hands(monkeypatch, size, lambda e=evaluator, n=net: e.run({"student": n, "teacher": Net(2)}))
        assert net.seen == sum(sizes)  # each example once, by somebody
        for name, value in merged.items():
            counted = name.endswith(("top1", "top5", "agreement"))
            assert value == (alone[name] if counted else pytest.approx(alone[name], rel=1e-12))
    nets = {"student": Net(1), "teacher": Net(2)}
    dealt = hands(monkeypatch, size, lambda: predictions.predictions(nets, data["test"], PLACE, TASK))
    assert dealt.keys() == kept.keys() and all(dealt[name].equal(kept[name]) for name in kept)
