"""Parameter groups for weight decay, and optimisers by name."""

import pytest
import torch
from torch import nn

from kdx.config.compose import compose
from kdx.core.errors import UserError
from kdx.engine.optim.optimizer import SGD, Timm
from kdx.runs.build import make


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    net[0].bias.requires_grad_(False)
    return net


def sgd(**changed) -> SGD:
    return SGD(
        **{
            "lr": 0.5,
            "weight_decay": 0.1,
            "decay_norm_and_bias": True,
            "momentum": 0.0,
            "nesterov": False,
            "implementation": "foreach",
        }
        | changed
    )


@pytest.mark.parametrize("everything", [True, False])
def test_weight_decay_reaches_what_it_should(everything: bool):
    net = network()
    before = {name: p.clone() for name, p in net.named_parameters()}
    optimizer = sgd(decay_norm_and_bias=everything).build(net.named_parameters())
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in net.named_parameters():
        decays = p.requires_grad and (everything or name in ("0.weight", "3.weight"))
        expected = before[name] * (1 - 0.5 * 0.1) if decays else before[name]
        assert torch.allclose(p, expected, rtol=1e-6, atol=0), name


@pytest.mark.parametrize("everything", [True, False])
def test_each_trainable_parameter_is_in_one_group(everything: bool):
    net = network()
    groups = sgd(decay_norm_and_bias=everything).groups(net.named_parameters())
    ids = [id(p) for g in groups for p in g["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in net.parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_every_optimiser_of_the_config_learns(name: str):
    settings = compose([f"optimizer={name}"]).config["optimizer"]
    net = network()
    optimizer = make(settings).build(net.named_parameters())
    assert {g["lr"] for g in optimizer.param_groups} == {settings["lr"]}
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    learned = {path: p for path, p in net.named_parameters() if p.requires_grad}
    assert len(decays) == len(learned)
    for path, parameter in learned.items():
        matrix = parameter.ndim > 1 or settings["decay_norm_and_bias"]
        assert decays[id(parameter)] == (settings["weight_decay"] if matrix else 0.0), path
    x, y = torch.randn(8, 1, 4, 4), torch.arange(8) % 2
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_an_optimiser_that_timm_lacks():
    wrong = Timm(name="lamp", lr=0.1, weight_decay=0.0, decay_norm_and_bias=True, options={})
    with pytest.raises(UserError, match="timm has no optimizer 'lamp'; did you mean 'lamb'"):
        wrong.build(network().named_parameters())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_fused_is_the_same_optimiser_up_to_rounding(name: str):
    ends = []
    for implementation in ("foreach", "fused"):
        settings = compose([f"optimizer={name}", f"optimizer.implementation={implementation}", "optimizer.lr=0.01"])
        net = network()
        optimizer = make(settings.config["optimizer"]).build(net.named_parameters())
        groups = [g["fused"] for g in optimizer.param_groups]
        assert all(bool(fused) == (implementation == "fused") for fused in groups)
        torch.manual_seed(1)
        for _ in range(20):
            loss = nn.functional.cross_entropy(net(torch.randn(8, 1, 4, 4)), torch.arange(8) % 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-6)
