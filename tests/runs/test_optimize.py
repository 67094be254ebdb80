"""Teachers at full tilt in whole runs: measured, told, refused."""

from dataclasses import replace

import pytest
import torch

from kdx.config.compose import ConfigError
from kdx.core.errors import UserError
from kdx.core.seed import seeded
from kdx.metrics.deviation import Deviation
from kdx.models.teachers.frozen import Frozen
from kdx.runs.build import build_light, build_loaders, build_network
from kdx.runs.optimize import optimized
from kdx.runs.run import run

WEIGHTS = f"teacher.checkpoint='{__file__}'"
# untrained nets of few channels: their predictions are ties
LOOSE = ("teacher.max_kl=10", "teacher.min_agreement=0")


def exact_teacher(config) -> Frozen:
    net = build_network(config.teacher.net, 1)
    with seeded(0, "statistics"), torch.no_grad():
        net.train()(torch.randn(64, *config.dataset["input_shape"]))
    return Frozen(net, ([0.4] * 3, [0.3] * 3), ([0.5] * 3, [0.25] * 3))


def scene(tiny, *overrides: str):
    config = tiny(WEIGHTS, "teacher.calibration_examples=16", *overrides)
    return config, exact_teacher(config), build_loaders(config, build_light(config))


@pytest.mark.parametrize("how", ["folded", "bf16", "int8"])
def test_the_deviation_is_that_of_training_examples_and_no_other_split_is_read(tiny, how):
    config, exact, loaders = scene(tiny, f"teacher.optimize={how}", *LOOSE)
    fast, facts = optimized(config, exact, replace(loaders, evals={}), torch.device("cpu"))
    expected = Deviation()
    for _, batch in zip(range(2), loaders.train.epoch(1), strict=False):  # 2 x 8 examples, unlike those it was set on
        expected.update(exact(batch.inputs).logits, fast(batch.inputs).logits)
    assert facts["deviation"] == expected.compute() and facts["optimize"] == how and facts["speed"] > 0


def test_exact_is_the_very_network(tiny):
    config, exact, loaders = scene(tiny)
    fast, facts = optimized(config, exact, loaders, torch.device("cpu"))
    assert fast is exact and facts == {"optimize": "exact"}


@pytest.mark.parametrize("limit", ["teacher.max_kl=0", "teacher.min_agreement=1"])
def test_what_strays_is_refused_in_a_line(tiny, limit):
    config, exact, loaders = scene(tiny, "teacher.optimize=int8", *LOOSE, limit)
    with torch.no_grad():  # alike classes, which integers mix up
        exact.net.fc.weight.copy_(exact.net.fc.weight.mean(0) + 1e-4 * exact.net.fc.weight)
        exact.net.fc.bias.zero_()
    with pytest.raises(UserError, match="teacher.optimize=int8 deviates too much from the exact teacher: KL") as caught:
        optimized(config, exact, loaders, torch.device("cpu"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_teacher_that_is_no_number_does_not_pass(tiny):
    config, exact, loaders = scene(tiny, "teacher.optimize=folded", *LOOSE)
    exact.net.fc.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="deviates too much"):
        optimized(config, exact, loaders, torch.device("cpu"))


@pytest.mark.parametrize("how, method", [("folded", "at"), ("bf16", "simkd"), ("int8", "kd"), ("folded", "ofd")])
def test_runs_end_with_the_measurement_in_their_result(tiny, how, method):
    result = run(tiny(f"teacher.optimize={how}", f"method={method}", "teacher.calibration_examples=16", *LOOSE))
    teacher = result.data["teacher"]
    assert teacher["optimize"] == how and 0 <= teacher["deviation"]["kl_t4"] < 10
    assert 0 <= teacher["test/top1"] <= 1


def test_an_exact_run_says_so(tiny):
    assert run(tiny()).data["teacher"]["optimize"] == "exact"


@pytest.mark.parametrize("method", ["at", "crd", "ofd", "srrl", "simkd", "jacobian", "sobolev", "reviewkd"])
def test_integers_are_refused_where_more_than_logits_is_read(tiny, method):
    with pytest.raises(ConfigError) as caught:
        tiny("teacher.optimize=int8", f"method={method}")
    assert len(caught.value.problems) == 1
    assert "teacher.optimize=int8 gives a teacher's logits alone, no features, and the method needs more:" in str(
        caught.value
    )
