"""Optimisers without the compiler equal torch's bit for bit, and load each other's state."""

import copy

import pytest
import torch
from torch import nn

from kdx.engine.optim.fast_optim import unwrapped

KINDS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "foreach": True}),
    "fused sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "plain sgd": (torch.optim.SGD, {"lr": 0.1, "foreach": True}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "foreach": True}),
}


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (step + 1)
        optimizer.zero_grad(set_to_none=True)
        net(torch.randn(8, 5)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(("kind", "options"), KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("crossed", [False, True])
def test_steps_and_state_are_torchs(kind, options, crossed: bool):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))
    theirs = copy.deepcopy(ours)
    mine, torchs = (
        make([{"params": list(net[:1].parameters())}, {"params": list(net[1:].parameters()), "lr": 0.5}], **options)
        for make, net in ((unwrapped(kind), ours), (kind, theirs))
    )
    assert isinstance(mine, kind)
    steps(ours, mine, 0, 8)
    steps(theirs, torchs, 0, 8)
    if crossed:  # a checkpoint of either resumes with the other
        states = copy.deepcopy(mine.state_dict()), copy.deepcopy(torchs.state_dict())
        mine.load_state_dict(states[1])
        torchs.load_state_dict(states[0])
    steps(ours, mine, 8, 12)
    steps(theirs, torchs, 8, 12)
    a, b = mine.state_dict(), torchs.state_dict()
    assert a["param_groups"] == b["param_groups"] and a["state"].keys() == b["state"].keys()
    for of, other in zip(a["state"].values(), b["state"].values(), strict=True):
        assert of.keys() == other.keys()
        assert all(torch.equal(of[k], other[k]) if isinstance(of[k], torch.Tensor) else of[k] == other[k] for k in of)
    assert all(torch.equal(p, q) for p, q in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert not any(p.requires_grad and p.grad_fn for p in ours.parameters())
