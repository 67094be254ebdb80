"""Rates, decay and layers of parameter groups, against timm's at every step."""

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from torch import nn

from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.engine.optim.groups import Rates, mark_parameters
from kdx.engine.optim.lr import Cosine, MultiStep
from kdx.engine.optim.optimizer import AdamW, Timm

STEPS = 40
ADAMW = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "implementation": "foreach"}


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 3, "num_heads": 2, "num_classes": 3}
    return timm.create_model("vit_tiny_patch16_224", **sizes)


def timm_adamw(**options: float) -> Timm:
    return Timm(name="adamw", lr=0.01, weight_decay=0.1, decay_norm_and_bias=False, options=options)


def by_name(net: nn.Module, groups: list[dict], key: str) -> dict[str, float]:
    names = {id(p): name for name, p in net.named_parameters()}
    return {names[id(p)]: group.get(key, 1.0) for group in groups for p in group["params"]}


def test_weight_decay_spares_what_timm_spares(vit: nn.Module):
    mark_parameters(vit, False)
    own = AdamW(lr=0.1, weight_decay=0.1, decay_norm_and_bias=False, **ADAMW).groups(vit.named_parameters())
    theirs = param_groups_weight_decay(vit, 0.1, no_weight_decay_list=vit.no_weight_decay())
    found = by_name(vit, own, "weight_decay")
    assert found == by_name(vit, theirs, "weight_decay")
    assert found["pos_embed"] == found["cls_token"] == 0 and found["patch_embed.proj.weight"] == 0.1
    everything = AdamW(lr=0.1, weight_decay=0.1, decay_norm_and_bias=True, **ADAMW).groups(vit.named_parameters())
    assert set(by_name(vit, everything, "weight_decay").values()) == {0.1}


def test_a_pattern_of_names_is_honoured():
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net.no_weight_decay = lambda: {"b.*"}
    mark_parameters(net, False)
    groups = AdamW(lr=0.1, weight_decay=0.1, decay_norm_and_bias=False, **ADAMW).groups(net.named_parameters())
    assert by_name(net, groups, "weight_decay") == {"a.weight": 0.1, "a.bias": 0, "b.weight": 0, "b.bias": 0}


def test_layer_decay_gives_timms_groups(vit: nn.Module):
    mark_parameters(vit, True)
    own = timm_adamw(layer_decay=0.5).groups(vit.named_parameters())
    theirs = param_groups_layer_decay(vit, 0.1, vit.no_weight_decay(), layer_decay=0.5)
    for key in ("lr_scale", "weight_decay"):
        assert by_name(vit, own, key) == by_name(vit, theirs, key)
    scales = by_name(vit, own, "lr_scale")
    assert scales["head.weight"] == 1 and scales["pos_embed"] == scales["patch_embed.proj.weight"] == 0.5**4


@pytest.mark.parametrize("kind", ["cosine", "steps"])
def test_each_steps_rates_are_timms(vit: nn.Module, kind: str):
    mark_parameters(vit, True)
    ours = timm_adamw(layer_decay=0.5).build(vit.named_parameters())
    theirs = create_optimizer_v2(vit, "adamw", lr=0.01, weight_decay=0.1, layer_decay=0.5)
    if kind == "cosine":
        schedule = Cosine(end=0.0, warmup_epochs=0.0, warmup_start=0.0)
        other = CosineLRScheduler(theirs, t_initial=STEPS, lr_min=0.0)
    else:
        schedule = MultiStep([10, 25], 0.1, warmup_epochs=0.0, warmup_start=0.0)
        # timm compares milestones with the number of the step counted from 1
        other = MultiStepLRScheduler(theirs, decay_t=[11, 26], decay_rate=0.1)
    rates = Rates(ours)
    for step in range(STEPS):
        rates.set(schedule(Progress(step, STEPS, STEPS)))
        other.step(step)
        found, expected = (by_name(vit, o.param_groups, "lr") for o in (ours, theirs))
        assert found == pytest.approx(expected, rel=1e-9), step
        assert rates.highest == pytest.approx(max(expected.values()), rel=1e-9)


def test_a_group_keeps_the_rate_that_it_was_built_with():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": net[0].parameters(), "lr": 0.05}, {"params": net[1].parameters()}]
    rates = Rates(optimizer := torch.optim.SGD(groups, lr=0.1))
    state = optimizer.state_dict()
    for factor in (1.0, 0.3, 0.0, 1.0):
        rates.set(factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.05 * factor, 0.1 * factor]
    optimizer.load_state_dict(state)  # puts other groups in place
    rates.set(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.05]


@pytest.mark.parametrize(
    "options, error",
    [
        ({"layer_decay": 2.0}, "optimizer.options.layer_decay: must be a number above 0 and at most 1, found 2.0"),
        ({"layer_decay": 0.5}, "optimizer.options.layer_decay needs a network of timm"),
        ({"layer_decay_min_scale": 0.5}, "optimizer.options.layer_decay_min_scale has no effect here"),
        ({"warmth": 3}, "optimizer.options: timm's adamw refuses {'warmth': 3}: .*unexpected keyword argument"),
    ],
)
def test_options_without_an_effect_are_refused(options: dict, error: str):
    with pytest.raises(UserError, match=error):
        timm_adamw(**options).build(nn.Linear(2, 2).named_parameters())
