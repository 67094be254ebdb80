"""Verdicts on claims, against numpy, scipy and cases where the answer is known."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from kdx.config.layout import config_dir, options
from kdx.core.errors import UserError
from kdx.tables.claims.claim import Quantity
from kdx.tables.claims.index import index, judged_tables, values_of
from kdx.tables.claims.judge import Judged, judge
from kdx.tables.claims.read import check_places, read
from kdx.tables.claims.write import section

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "outputs" / "tables"
X = {"0": 0.0, "0.5": 0.5, "1": 1.0}


def need(expect: str = "above", margin: float = 0, left: Any = None, right: Any = None) -> dict[str, Any]:
    return {
        "left": left or {"row": "a", "column": "c"},
        "expect": expect,
        "right": {"row": "b", "column": "c"} if right is None else right,
        "margin": margin,
    }


def claim(*requires: dict[str, Any], unit: str = "") -> dict[str, Any]:
    return {"sentence": "It is so.", "printed": None, "unit": unit, "requires": list(requires)}


def values(**rows: list[float]) -> dict[str, dict[str, dict[int, float]]]:
    """One column "c"."""
    return {row: {"c": dict(enumerate(numbers))} for row, numbers in rows.items()}


def one(node: dict[str, Any], numbers: Any, fractions: bool = False) -> Judged:
    (judged,) = judge(read({"it": node}), numbers, fractions)
    return judged


def test_a_difference_is_scipys_paired_test():
    a, b = [0.9, 0.8, 0.95, 0.7], [0.6, 0.7, 0.65, 0.62]
    judged = one(claim(need()), values(a=a, b=b))
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.95)
    assert judged.found[0].p == pytest.approx(expected.pvalue) and judged.n == 4
    assert judged.found[0].interval == (pytest.approx(low), pytest.approx(high))
    assert judged.verdict == ("shown" if expected.pvalue < 0.05 else "not shown")


def test_a_level_is_scipys_test_of_one_sample():
    a = [0.52, 0.49, 0.51, 0.5, 0.53]
    judged = one(claim(need(right=0.4)), values(a=a))
    expected = stats.ttest_1samp(a, 0.4)
    assert judged.found[0].p == pytest.approx(expected.pvalue) and judged.verdict == "shown"


def test_each_side_has_its_verdict():
    high, low, noisy = [1.0, 1.1, 1.05], [0.0, 0.1, 0.02], [0.0, 2.0, 0.5]
    assert one(claim(need("above")), values(a=high, b=low)).verdict == "shown"
    assert one(claim(need("below")), values(a=high, b=low)).verdict == "opposite"
    assert one(claim(need("below")), values(a=low, b=high)).verdict == "shown"
    assert one(claim(need("above")), values(a=low, b=high)).verdict == "opposite"
    assert one(claim(need("above")), values(a=noisy, b=low)).verdict == "not shown"


def test_a_margin_must_be_exceeded():
    a, b = [1.0, 1.1, 1.05], [0.0, 0.1, 0.05]
    assert one(claim(need("above", 0.5)), values(a=a, b=b)).verdict == "shown"
    # neither beyond the margin nor reversed
    assert one(claim(need("above", 1.5)), values(a=a, b=b)).verdict == "not shown"


def test_equal_means_inside_the_margin():
    a, near, far = [0.500, 0.503, 0.499], [0.5, 0.501, 0.501], [0.9, 0.91, 0.9]
    assert one(claim(need("equal", 0.05)), values(a=a, b=near)).verdict == "shown"
    assert one(claim(need("equal", 0.05)), values(a=a, b=far)).verdict == "opposite"
    assert one(claim(need("equal", 0.001)), values(a=a, b=near)).verdict == "not shown"


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
def test_equal_is_shown_where_the_interval_lies_inside_the_margin(margin: float):
    random.seed(int(1000 * margin))
    seen = set()
    for _ in range(60):
        center, spread = random.uniform(-0.1, 0.1), random.choice([0.001, 0.02])
        a = [center + random.gauss(0, spread) for _ in range(4)]
        judged = one(claim(need("equal", margin, right=0)), values(a=a))
        low, high = stats.ttest_1samp(a, 0).confidence_interval(0.95)
        inside, outside = -margin < low and high < margin, low > margin or high < -margin
        assert judged.verdict == ("shown" if inside else "opposite" if outside else "not shown")
        seen.add(judged.verdict)
    assert seen == {"shown", "opposite", "not shown"}


def test_all_requirements_must_hold_and_one_reversed_is_the_opposite():
    numbers = values(a=[1.0, 1.1, 1.05], b=[0.0, 0.1, 0.02], d=[0.5, 3.0, -1.5])
    holds, unsure = need(), need(right={"row": "d", "column": "c"})
    reverse = need(left={"row": "b", "column": "c"}, right={"row": "a", "column": "c"})
    both = one(claim(holds, unsure), numbers)
    assert both.verdict == "not shown" and both.p == max(found.p for found in both.found)
    assert one(claim(holds, reverse), numbers).verdict == "opposite"
    assert one(claim(holds, holds), numbers).verdict == "shown"


def test_fewer_than_three_seeds_and_missing_cells_have_no_verdict():
    assert one(claim(need()), values(a=[1.0, 1.1], b=[0.0, 0.1])).verdict == "no verdict"
    assert one(claim(need()), values(a=[1.0], b=[0.0])).verdict == "no verdict"
    judged = one(claim(need()), values(a=[1.0, 1.1, 1.2]))
    assert judged.verdict == "no verdict" and list(judged.lacking) == ["b, c"]


def test_holms_correction_counts_the_claims_with_a_verdict():
    numbers = values(a=[1.0, 1.2, 1.1, 0.8], b=[0.1, 0.5, 0.6, 0.5], d=[5.0, 5.1, 5.0, 4.9])
    alone = one(claim(need()), numbers)
    assert alone.verdict == "shown" and 0.01 < alone.p < 0.05
    others = {str(i): claim(need(right={"row": "d", "column": "c"})) for i in range(8)}
    lacking = {"lacking": claim(need(right={"row": "e", "column": "c"}))}
    among = judge(read({"it": claim(need()), **others, **lacking}), numbers, False)
    assert among[0].holm == alone.p and among[0].verdict == "shown"  # it has the largest p of all
    unsure = {str(i): claim(need()) for i in range(8)}
    assert {each.verdict for each in judge(read(unsure), numbers, False)} == {"not shown"}


def test_false_claims_are_seldom_shown():
    random.seed(3)
    shown = 0
    for _ in range(400):
        a, b = ([random.gauss(0, 1) for _ in range(4)] for _ in range(2))
        shown += one(claim(need()), values(a=a, b=b)).verdict != "not shown"
    assert shown <= 35  # 5 % of 400 are 20; a binomial number exceeds 35 once in a thousand times


def test_a_slope_is_numpys_seed_by_seed():
    generator = np.random.default_rng(0)
    table = {r: {c: dict(enumerate(generator.normal(size=4))) for c in X} for r in ("a", "b")}
    slope = Quantity(row="a", column=X, minus="b").of(table)
    for seed in range(4):
        y = [table["a"][c][seed] - table["b"][c][seed] for c in X]
        assert slope[seed] == pytest.approx(np.polyfit(list(X.values()), y, 1)[0])
    turned = {c: {r: of[c] for r, of in table.items()} for c in X}
    along_rows = Quantity(row=X, column="a").of(turned)
    assert along_rows[2] == pytest.approx(np.polyfit(list(X.values()), [table["a"][c][2] for c in X], 1)[0])


def test_the_place_of_the_lowest_and_of_the_highest():
    table = {"a": {"0": {0: 3.0, 1: 1.0}, "0.5": {0: 1.0, 1: 2.0}, "1": {0: 2.0, 1: 3.0}}}
    assert Quantity(row="a", column=X, take="lowest").of(table) == {0: 0.5, 1: 0.0}
    assert Quantity(row="a", column=X, take="highest").of(table) == {0: 0.0, 1: 1.0}


def test_seeds_that_a_cell_lacks_are_left_out():
    table = {"a": {"0": {0: 1.0, 1: 1.0, 2: 1.0}, "1": {0: 2.0, 2: 4.0}}}
    assert Quantity(row="a", column={"0": 0, "1": 1}).of(table) == {0: 1.0, 2: 3.0}


def test_percentages_of_fractions_are_times_a_hundred_and_places_are_not():
    numbers = values(a=[0.5, 0.6, 0.55], b=[0.4, 0.52, 0.46])
    as_fractions = one(claim(need(), unit="%"), numbers, fractions=True).found[0]
    plain = one(claim(need(), unit="%"), numbers).found[0]
    assert as_fractions.difference == pytest.approx(100 * plain.difference)
    assert as_fractions.p == pytest.approx(plain.p)
    table = {"a": {c: dict.fromkeys(range(3), abs(x - 0.5)) for c, x in X.items()}}
    lowest = need("equal", 0.1, left={"row": "a", "column": X, "take": "lowest"}, right=0.5)
    assert one(claim(lowest, unit="%"), table, fractions=True).found[0].difference == 0.0


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"sentence": "x"}, "study.claims.it: printed is missing"),
        ({**claim(need()), "why": 1}, "study.claims.it: there is no key 'why'"),
        (claim(), "study.claims.it.requires: a list of at least one"),
        (claim({**need(), "expect": "more"}), "requires[0]: expect must be above, below or equal, found 'more'"),
        (claim(need("equal")), "requires[0]: margin must be"),
        (claim({**need(), "right": "b"}), "requires[0].right: a number is needed, found 'b'"),
        (claim(need(left={"row": X, "column": X})), "requires[0].left: at most one of row and column"),
        (claim(need(left={"row": "a", "column": {"0": 0}})), "a slope needs at least two cells"),
        (claim(need(left={"row": "a", "column": {"0": 1, "1": 1}})), "the numbers of the cells must differ"),
        (claim(need(left={"row": "a", "column": {"0": "x", "1": 1}})), "left.column.0: a number is needed"),
        (claim(need(left={"row": "a", "column": X, "take": "best"})), "take must be one of slope, lowest, highest"),
        (claim(need(left={"row": "a", "column": X, "take": "lowest"})), "left and right have different units"),
    ],
)
def test_mistakes_are_named(node: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        read({"it": node})
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_row_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="study.claims.it: there is no row 'b'"):
        check_places(read({"it": claim(need())}), ["a"], ["c"])
    with pytest.raises(UserError, match="study.claims.it: there is no column 'c'"):
        check_places(read({"it": claim(need())}), ["a", "b"], ["d"])


def test_the_markdown_says_verdict_rule_and_numbers():
    numbers = values(a=[1.0, 1.1, 1.05], b=[0.0, 0.1, 0.02])
    node = {**claim(need()), "printed": "1 against 0"}
    lines = section([one(node, numbers), one(claim(need()), values(a=[1.0]))])
    text = "\n".join(lines)
    assert "- **shown**: It is so. (n = 3; p < 0.001" in text and "the paper: 1 against 0" in text
    assert "  - a, c above b, c: +1.010 [" in text and "over 3 seeds" in text
    assert "- **no verdict**: It is so. (n = 0)" in text and "without runs: b, c" in text
    assert section([]) == []


def test_verdicts_from_the_csv_file_are_those_of_the_values(tmp_path: Path):
    path = tmp_path / "x" / "cpu.csv"
    path.parent.mkdir()
    path.write_text('row,column,seeds,values\n"\'-a, b",c,0 1 2,1.0 1.1 1.05\nd,c,0 1 2,0.0 0.1 0.02\ne,c,,\n')
    found, fractions = values_of(path)
    assert found == {"-a, b": {"c": {0: 1.0, 1: 1.1, 2: 1.05}}, "d": {"c": {0: 0.0, 1: 0.1, 2: 0.02}}}
    assert not fractions
    node = claim(need(left={"row": "-a, b", "column": "c"}, right={"row": "d", "column": "c"}))
    studies = {
        "x": {"_target_": "a.PaperTable", "title": "X", "scales": {"smoke": {}, "cpu": {}}, "claims": {"it": node}},
        "y": {"_target_": "a.Grid", "title": "Y", "scales": {"cpu": {}}, "claims": {"it": node}},
        "z": {"_target_": "a.Grid", "title": "Z"},
    }
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "cpu.csv").write_text(path.read_text())  # a claim of a grid is about the grid, not about a scale
    text = index(studies, tmp_path)
    assert "## [x, scale cpu](x/cpu.md)" in text and "| It is so. | **shown** | 3 | +1.010 [" in text
    assert "In all: 1 shown, 0 not shown, 0 opposite, 0 no verdict." in text
    assert "- `y`: It is so." in text and "`z`" not in text


def test_the_committed_tables_hold_the_verdicts_of_their_numbers():
    studies = {n: yaml.safe_load((config_dir() / "study" / f"{n}.yaml").read_text()) for n in options("study")}
    for name, path, judged in judged_tables(studies, TABLES):
        written = path.with_suffix(".md").read_text()
        assert "\n".join(section(judged)).strip() in written, f"{path}: kdx study study={name} only=render"


def test_equal_places_are_known_to_their_distance_on_the_grid():
    table = {r: {c: dict.fromkeys(range(3), abs(x - at)) for c, x in X.items()} for r, at in (("a", 1.0), ("b", 0.5))}
    place = {r: {"row": r, "column": X, "take": "lowest"} for r in table}
    found = one(claim(need(left=place["a"], right=place["b"])), table).found[0]
    assert found.difference == 0.5 and found.p > 0.001
    low, high = found.interval
    assert high - low > 0.1


def test_no_number_is_nan_in_a_verdict():
    judged = one(claim(need()), values(a=[1.0, 1.0, 1.0], b=[1.0, 1.0, 1.0]))
    assert judged.verdict == "not shown" and judged.p == 1.0 and not math.isnan(judged.holm)
