"""`kdx compare`: what differs, and whether it matters."""

import math
import re
from copy import deepcopy

import pytest
from fabricate import changed, fabricate

from kdx.core.errors import UserError
from kdx.report.collect import Run
from kdx.report.compare import gather, look, main
from kdx.report.verdicts import report
from kdx.runs.results import Result


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
        assert [run.seed for run in gather(side, False)] == [0, 1, 2]
    assert [run.seed for run in gather(str(pair / "heavy-1"), False)] == [1]
    assert [run.seed for run in gather(str(pair / "heavy-1"), True)] == [0, 1, 2]
    with pytest.raises(UserError, match="2 experiments.*method.weights.kd"):
        gather(str(pair), False)
    with pytest.raises(UserError, match="no such run"):
        gather(str(pair / "medium"), False)


def line_of(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_pairs_find_what_the_spread_over_seeds_hides(pair):
    light, heavy = (gather(str(pair / name), False) for name in ("light", "heavy"))
    text = report(light, heavy, [], "last")
    row = line_of(text, "top-1 %")
    # differences 2.0, 2.1, 2.2 points
    half = 4.30265 * 0.1 / math.sqrt(3)
    assert f"+2.10   [{2.1 - half:+.2f}, {2.1 + half:+.2f}]" in row
    assert row.endswith("B is higher, better *")
    assert "paired over the 3 seeds" in text and "Holm" in text
    assert line_of(text, "NLL").endswith("the same")
    # without pairs the same numbers say nothing
    shifted = gather(str(pair / "heavy"), False)[:1]
    alone = report(light[1:], shifted, ["test/top1"], "last")
    assert "not paired (0 of 2 and 1 seeds match)" in alone
    assert "too few seeds" in alone


def test_the_printed_difference_is_that_of_the_printed_means(pair):
    light, heavy = (gather(str(pair / name), False) for name in ("light", "heavy"))
    extra = Run(Result(light[0].result.folder, deepcopy(light[0].result.data)), {**light[0].config, "seed": 9})
    extra.result.data["seed"] = 9
    extra.result.data["metrics"]["last"]["test/top1"] = 0.0
    text = report([*light, extra], heavy, ["test/top1"], "last")
    assert "means and differences are of these, 1 other run left out" in text
    row = line_of(text, "top-1 %").split("%", 1)[1]
    first, second, gain = (float(n) for n in re.findall(r"(\d+\.\d+|\d+) ±|([+-]\d+\.\d+) ", row) for n in n if n)
    assert second - first == pytest.approx(gain, abs=0.011) and gain == 2.10


def test_unequal_budgets_and_failed_runs_come_first(pair):
    light, heavy = (gather(str(pair / name), False) for name in ("light", "heavy"))
    for run in heavy:
        run.result.data.update({"steps": 160, "examples": {"training": 80, "test": 25}})
    lines = report(light, heavy, [], "last", ["B: heavy-7: failed"]).splitlines()
    assert lines[:3] == [
        "warning: unequal steps: A 8; B 160",
        "warning: unequal training examples: A 40; B 80",
        "warning: no result of B: heavy-7: failed",
    ]


def test_a_side_tells_of_its_runs_without_a_result(pair):
    (pair / "heavy-2" / "DONE").unlink()
    (pair / "heavy-2" / "error.txt").write_text("the disk is full")
    (pair / "light-2" / "DONE").unlink()
    assert look(str(pair / "heavy"), False, [])[1] == ["heavy-2: failed"]
    # beside a run, only what is of its experiment
    assert look(str(pair / "heavy-0"), True, [])[1] == ["heavy-2: failed"]
    assert look(str(pair / "light-0"), True, [])[1] == ["light-2: not finished"]


def test_times_of_fused_runs_are_not_compared(pair):
    light, heavy = (gather(str(pair / name), False) for name in ("light", "heavy"))
    for i, run in enumerate(heavy):
        run.result.data.update({"fused": 3, "seconds": 1.0 + 0.001 * i})
    text = report(light, heavy, [], "last")
    assert line_of(text, "seconds").endswith("not compared: 3 of 6 runs trained together with others")
    assert text.startswith("warning: times are not compared: 3 of 6 runs trained together with others\n")
    for run in heavy:
        run.result.data["fused"] = 1
    assert "better" in line_of(report(light, heavy, [], "last"), "seconds")


def test_one_of_several_metrics_that_differs_alone_does_not_after_holm(pair):
    light, heavy = (gather(str(pair / name), False) for name in ("light", "heavy"))
    for i, (one, other) in enumerate(zip(light, heavy, strict=True)):
        for k in range(8):
            one.result.data["metrics"]["last"][f"test/a{k}"] = 0.0
            other.result.data["metrics"]["last"][f"test/a{k}"] = (1.0 + 0.3 * i) if k == 0 else 0.5 * (i - 1)
    names = [f"test/a{k}" for k in range(8)]
    assert line_of(report(light, heavy, names, "last"), "test/a0").endswith("B is higher, but not after Holm")
    assert line_of(report(light, heavy, names[:1], "last"), "test/a0").endswith("B is higher *")


def test_the_config_difference_leaves_seeds_out(pair):
    light, heavy = (gather(str(pair / name), False) for name in ("light-0", "heavy-1"))
    text = report(light, heavy, [], "last")
    changed_lines = text.split("Differences in the config:\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [line.split() for line in changed_lines] == [["method.weights.kd", "0.5", "0.9"]]
    assert "fewer than 3" in text
    assert "only in their seeds" in report(light, light, [], "last")


def test_other_code_and_hardware_are_reported(pair):
    light, heavy = (gather(str(pair / name), False) for name in ("light", "heavy"))
    for run in heavy:
        run.result.data["code"] = {"commit": "fedcba9876543210", "dirty": True}
        run.result.data["device"]["name"] = "Another processor"
    text = report(light, heavy, [], "last")
    assert "fedcba9876 + changes" in text
    assert "Another processor" in text


def test_a_metric_that_is_missing_is_named(pair):
    light, heavy = (gather(str(pair / name), False) for name in ("light", "heavy"))
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
