"""The moving average against timm's, and against the recursion in float64."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from kdx.config.compose import ConfigError, compose
from kdx.config.identity import identity
from kdx.engine.optim.ema import Averaging, Ema, averaging
from kdx.runs.prepare import examine

PLAIN, WARM = Averaging(decay=0.9, warmup=False), Averaging(decay=0.9, warmup=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).train()


def drift(net: nn.Module) -> None:
    """One step of a made-up training: weights move, batch norms see a batch."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
    net(torch.randn(4, 3) + 2)


@pytest.mark.parametrize("settings", [PLAIN, WARM], ids=["plain", "warm-up"])
def test_each_step_is_timms(settings: Averaging):
    net = network()
    ema, theirs = Ema(net, settings), ModelEmaV3(net, decay=0.9, use_warmup=settings.warmup)
    for step in range(1, 61):
        drift(net)
        ema.update(step)
        theirs.update(net, step if settings.warmup else None)
        ours, expected = ema.model.state_dict(), theirs.module.state_dict()
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[name], expected[name]) for name in ours), step


def test_parameters_and_statistics_are_the_recursion_and_counters_are_copies():
    net = network()
    ema = Ema(net, PLAIN)
    expected = {k: v.double() for k, v in net.state_dict().items()}
    for step in range(1, 6):
        drift(net)
        ema.update(step)
        expected = {k: 0.9 * v + 0.1 * net.state_dict()[k].double() for k, v in expected.items()}
    for name, value in ema.model.state_dict().items():
        if name == "1.num_batches_tracked":
            assert value == 5
        else:
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ema.model[1].running_mean, net[1].running_mean)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())
    other = Ema(net, PLAIN)
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(other.model.parameters(), ema.model.parameters(), strict=True))


def test_a_constant_buffer_stays_what_it_is():
    net = network()
    net.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    net.register_buffer("table", torch.rand(3))
    ema = Ema(net, PLAIN)
    for step in range(1, 4):
        drift(net)
        ema.update(step)
    assert torch.equal(ema.model.mask, net.mask) and torch.equal(ema.model.table, net.table)


def test_the_warm_up_forgets_the_initial_network_and_never_exceeds_the_decay():
    decays = [WARM.at(step) for step in range(1, 200)]
    assert decays == sorted(decays) and decays[0] == 0 and decays[-1] == 0.9
    assert [PLAIN.at(step) for step in (1, 50)] == [0.9, 0.9]


@pytest.mark.parametrize("steps, told", [(21, True), (22, False)])
def test_a_run_that_is_too_short_for_its_decay_is_reported(steps: int, told: bool):
    assert (0.9**steps > 0.1) == told
    assert bool(list(PLAIN.remarks(steps))) == told and not list(WARM.remarks(steps))


def test_a_number_and_the_keys_are_one_setting():
    of = {
        text: examine(compose(["method=supervised", f"trainer.ema={text}"]))
        for text in ("0.5", "{decay: 0.5, warmup: false}", "{decay: 0.5, warmup: true}")
    }
    number, plain, warm = of.values()
    assert averaging(number.trainer["ema"]) == Averaging(decay=0.5, warmup=False)
    assert identity(number) == identity(plain) != identity(warm)


@pytest.mark.parametrize(
    "text, error",
    [
        ("{decay: 0.5}", "missing key 'trainer.ema.warmup'"),
        ("{decay: 1.5, warmup: true}", "trainer.ema.decay: must be less than 1, found 1.5"),
        ("{decay: 0.5, warm: true}", "unknown key 'trainer.ema.warm'; did you mean 'warmup'?"),
        ("1.5", "trainer.ema: must be less than 1 or null, found 1.5"),
    ],
)
def test_wrong_settings_are_named(text: str, error: str):
    with pytest.raises(ConfigError) as raised:
        examine(compose(["method=supervised", f"trainer.ema={text}"]))
    assert error in raised.value.problems
