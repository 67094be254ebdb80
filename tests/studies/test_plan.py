"""Seeds that a claim needs: its probability by simulation, and the command."""

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from door import command
from scipy.stats import chi2
from test_until_decided import result

from kdx.core.errors import UserError
from kdx.studies.plan import plan
from kdx.tables.planning import POWER, seeds_needed, spread_interval
from kdx.tables.statistics import compare


@pytest.mark.parametrize(("gain", "std"), [(1.0, 0.6), (0.3, 0.4), (-0.5, 0.2)])
def test_with_so_many_seeds_four_of_five_studies_claim_the_effect(gain: float, std: float):
    needed, trials = seeds_needed(gain, std), 1500
    assert needed.fixed is not None and needed.sequence is not None and needed.fixed < needed.sequence
    draws = np.random.default_rng(8)
    fixed = sequence = 0
    for _ in range(trials):
        values = draws.normal(gain, std, needed.sequence).tolist()
        fixed += compare(dict(enumerate(values[: needed.fixed])), dict.fromkeys(range(needed.fixed), 0.0)).significant
        sequence += any(
            compare(dict(enumerate(values[:n])), dict.fromkeys(range(n), 0.0), anytime=True).significant
            for n in range(3, needed.sequence + 1)
        )
    # the formula takes the spread as known, which is optimistic for three or four seeds
    assert POWER - 0.12 < fixed / trials < 0.95, fixed / trials
    # one may have stopped at any seed before
    assert POWER - 0.05 < sequence / trials <= 1.0, sequence / trials


def test_the_spreads_interval_is_that_of_the_chi_squared_distribution():
    for n in (2, 3, 5, 20, 100):
        wanted = [math.sqrt((n - 1) / chi2.ppf(q, n - 1)) for q in (0.975, 0.025)]
        assert spread_interval(1.0, n) == pytest.approx(wanted, rel=1e-9)


def test_a_plan_takes_its_spread_and_hours_from_the_finished_runs():
    seen = {row: {seed: result(row, seed) for seed in range(n)} for row, n in (("alone", 5), ("none", 4), ("noisy", 1))}
    for of in seen.values():
        for run in of.values():
            run.data["seconds"] = 360.0
    found = plan(seen, "alone", "test/top1", "last", 0.2)
    none, noisy = found.rows
    each = [seen["none"][s].data["metrics"]["last"]["test/top1"] - seen["alone"][s].data["metrics"]["last"]["test/top1"]
            for s in range(4)]  # fmt: skip
    assert none.std == pytest.approx(statistics.stdev(each)) and none.pairs == 4
    assert none.alone == seeds_needed(0.002, none.std) and none.holm == seeds_needed(0.002, none.std, 2)
    assert noisy.alone is None and math.isnan(noisy.std)
    assert none.holm is not None and none.holm.sequence is not None
    missing = (none.holm.sequence - 4) + (none.holm.sequence - 5)
    assert found.hours() == pytest.approx(missing * 0.1)
    with pytest.raises(UserError, match="no run of this study is finished"):
        plan({"alone": {}, "none": {}}, "alone", "test/top1", "last", 0.2)


def test_the_command_refuses_what_it_cannot_plan(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, line in (
        (["study=demo"], "kdx plan needs the size of the claim: gain=0.3"),
        (["study=demo", "gain=much"], "gain=much: must be a number other than 0"),
        (["study=hinton/mnist", "gain=1"], "this is a PaperTable"),
    ):
        said = command(capsys, "plan", *arguments)
        assert said.code == 2 and len(said.err) == 1 and line in said.err[0], said.err
