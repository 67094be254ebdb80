"""`kdx compare`: what differs, and whether it matters."""

import pytest
from fabricate import changed, fabricate

from kdx.core.errors import UserError
from kdx.report.compare import gather, main, report
from kdx.tables.statistics import bootstrap


@pytest.fixture
def kd(tiny):
    return tiny("method=kd")


@pytest.fixture
def pair(tmp_path, kd):
    """Two weights, three seeds each: 2 points apart within each seed, seeds 10 points apart."""
    for seed in range(3):
        for name, weight, gain in (("light", 0.5, 0.0), ("heavy", 0.9, 0.02 + 0.001 * seed)):
            config = changed(kd, seed=seed, data_seed=seed, method__weights__kd=weight)
            fabricate(tmp_path / f"{name}-{seed}", config, {"test/top1": 0.5 + 0.1 * seed + gain, "test/nll": 1.0})
    return tmp_path


def test_a_side_is_a_run_a_folder_a_pattern_or_a_beginning(pair):
    for side in (str(pair / "light-*"), str(pair / "light-"), str(pair / "light")):
        assert [run.seed for run in gather(side, False, [])] == [0, 1, 2]
    assert [run.seed for run in gather(str(pair / "heavy-1"), False, [])] == [1]
    assert [run.seed for run in gather(str(pair / "heavy-1"), True, [])] == [0, 1, 2]
    with pytest.raises(UserError, match="2 experiments.*method.weights.kd"):
        gather(str(pair), False, [])
    with pytest.raises(UserError, match="no such run"):
        gather(str(pair / "medium"), False, [])


def test_pairs_find_what_the_spread_over_seeds_hides(pair):
    light, heavy = (gather(str(pair / name), False, []) for name in ("light", "heavy"))
    text = report(light, heavy, [], "last")
    (row,) = [line for line in text.splitlines() if line.startswith("top-1 %")]
    assert "+2.10" in row
    assert "B is higher, better" in row
    low, high = bootstrap([0.02, 0.021, 0.022])
    assert f"{100 * low:+.2f} to {100 * high:+.2f}" in row
    assert "paired over the 3 seeds" in text
    (same,) = [line for line in text.splitlines() if line.startswith("NLL")]
    assert same.endswith("the same")
    # without pairs the same numbers say nothing
    shifted = gather(str(pair / "heavy"), False, [])[:1]
    alone = report(light[1:], shifted, ["test/top1"], "last")
    assert "not paired" in alone
    assert "too few seeds" in alone


def test_the_config_difference_leaves_seeds_out(pair):
    light, heavy = (gather(str(pair / name), False, []) for name in ("light-0", "heavy-1"))
    text = report(light, heavy, [], "last")
    changed_lines = text.split("Differences in the config:\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [line.split() for line in changed_lines] == [["method.weights.kd", "0.5", "0.9"]]
    assert "fewer than 3" in text
    assert "only in their seeds" in report(light, light, [], "last")


def test_other_code_and_hardware_are_told(pair):
    light, heavy = (gather(str(pair / name), False, []) for name in ("light", "heavy"))
    for run in heavy:
        run.result.data["code"] = {"commit": "fedcba9876543210", "dirty": True}
        run.result.data["device"]["name"] = "Another processor"
    text = report(light, heavy, [], "last")
    assert "fedcba9876 + changes" in text
    assert "Another processor" in text


def test_a_metric_that_is_missing_is_named(pair):
    light, heavy = (gather(str(pair / name), False, []) for name in ("light", "heavy"))
    with pytest.raises(UserError, match="'test/top2'.*did you mean 'test/top1'"):
        report(light, heavy, ["test/top2"], "last")
    with pytest.raises(UserError, match="was not measured"):
        report(light, heavy, ["test/top1"], "val_selected")


def test_commands_that_are_wrong_exit_with_two(pair, capsys):
    sides = [str(pair / "light"), str(pair / "heavy")]
    for arguments in (sides[:1], [*sides, "third"], [*sides, "protocol=first"], [*sides, "seeds=1"], [*sides, "-v"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    main([*sides, "metric=test/top1"])
    assert "top-1 %" in capsys.readouterr().out
