"""Presets of grids and chains: what they change, and what they refuse."""

from typing import Any

import pytest
from study_options import study_options

from kdx.config.validate import check
from kdx.core.errors import UserError
from kdx.studies.chain import Chain
from kdx.studies.grid import Grid
from kdx.studies.scales import Preset, latest

SMOKE = {"overrides": ["dataset=digits", "seed=7"], "seeds": [4], "rows": {"b": ["method.temperature=9"]}}
SHARED: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "overrides": ["dataset=mnist"],
    "seeds": [0, 1],
    "baseline": None,
    "columns": ["test/top1"],
    "protocol": "last",
    "scales": {"smoke": SMOKE},
}
ROWS = {"a": ["method=kd"], "b": ["method=kd", "method.temperature=2"]}


def grid(**changed: Any) -> Grid:
    own = {"seed_overrides": [], "rows": ROWS, "cost_row": None, "teacher_row": False}
    return Grid(**{**SHARED, **own, **changed})


def chain(**changed: Any) -> Chain:
    return Chain(**{**SHARED, "links": ROWS, "rows": None, **changed})


def test_the_last_override_of_a_key_counts():
    given = ["dataset=sst2", "seed=1", "dataset.folder=x", "dataset=phrases", "seed=2"]
    assert latest(given) == ["dataset=phrases", "seed=2", "dataset.folder=x"]


def test_a_preset_comes_after_a_rows_own_overrides():
    applied = Preset(**SMOKE).applied(ROWS)
    assert latest(["dataset=mnist", *applied["b"]]) == ["dataset=digits", "method=kd", "method.temperature=9", "seed=7"]
    assert applied["a"] == ["method=kd", "dataset=digits", "seed=7"]


@pytest.mark.parametrize("kind", [grid, chain])
def test_the_runs_of_a_scale_have_its_overrides_and_seeds_and_a_folder_of_their_own(
    kind: Any, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[str, list[int], dict[str, list[str]]]] = []
    study = kind()
    runs = "_execute" if kind is grid else "execute"
    execute = type(study).execute

    def spied(self: Any, paths: Any, options: Any, *notes: Any) -> list[str]:
        if options.scale is not None:
            return execute(self, paths, options)
        seen.append((self.name, list(self.seeds), getattr(self, "links", None) or self.rows))
        return []

    monkeypatch.setattr(type(study), runs, spied)
    study.execute({}, study_options(scale="smoke"))
    study.execute({}, study_options())
    (small, seeds, rows), (name, all_seeds, whole) = seen
    assert (small, seeds) == ("tiny/smoke", [4]) and (name, all_seeds) == ("tiny", [0, 1])
    assert rows["b"][-1] == "method.temperature=9" and whole["b"] == ROWS["b"]


def test_a_preset_in_a_file_may_leave_out_rows_and_paper_and_nothing_else():
    own = {
        "seed_overrides": [],
        "rows": ROWS,
        "cost_row": None,
        "teacher_row": False,
        "_target_": "kdx.studies.grid.Grid",
    }
    for left_out in ("overrides", "seeds"):
        node = {**SHARED, **own, "scales": {"smoke": {"overrides": [], "seeds": [0]}}}
        assert check(node, "study") == []
        del node["scales"]["smoke"][left_out]
        assert check(node, "study") == [f"missing key 'study.scales.smoke.{left_out}'"]


@pytest.mark.parametrize("kind", [grid, chain])
def test_wrong_scales_are_named(kind: Any):
    with pytest.raises(UserError, match=r"^scale=big: this study has smoke$"):
        kind().execute({}, study_options(scale="big"))
    with pytest.raises(UserError, match=r"^scale=big: this study has no scales$"):
        kind(scales={}).execute({}, study_options(scale="big"))
    with pytest.raises(UserError, match=r"^study.scales.smoke.seeds: at least one seed is needed$"):
        kind(scales={"smoke": {**SMOKE, "seeds": []}})
    with pytest.raises(UserError, match="there is no row 'c'"):
        kind(scales={"smoke": {**SMOKE, "rows": {"c": []}}}).execute({}, study_options(scale="smoke"))
