"""Pages of papers: which tables they find, and what they say of them, in Markdown and as HTML."""

import base64
from pathlib import Path
from typing import Any

import pytest

from kdx.core.errors import UserError
from kdx.report.papers import html, merged, write_papers
from kdx.tables.claims.pages import NO_RULE, Paper, markdown, page_of, totals

CLAIM = {
    "sentence": "a is above <b>.",
    "printed": "1 | 0",
    "unit": "",
    "requires": [
        {"left": {"row": "a", "column": "c"}, "expect": "above", "right": {"row": "b", "column": "c"}, "margin": 0}
    ],
}
STUDIES: dict[str, dict[str, Any]] = {
    "x/table": {
        "_target_": "k.PaperTable",
        "title": "Table",
        "scales": {"smoke": {}, "cpu": {}},
        "claims": {"k": CLAIM},
    },
    "x/grid": {"_target_": "k.Grid", "title": "Grid"},
    "x/later": {"_target_": "k.Chain", "title": "Later"},
}
PAPER = Paper(title="A & B", source="Someone 2020", claim="A works.", studies={name: {"cpu": 1.0} for name in STUDIES})
NUMBERS = "row,column,seeds,values\na,c,0 1 2,1.0 1.1 1.05\nb,c,0 1 2,0.0 0.1 0.02\n"
PICTURE = b"\x89PNG\r\n\x1a\nabc"


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("committed", [True, False])
def test_tables_are_found_where_studies_write_them_and_where_they_are_committed(tmp_path: Path, committed: bool):
    if committed:
        put(tmp_path / "x" / "table" / "cpu.csv", NUMBERS)
        put(tmp_path / "x" / "grid.csv", "row,metric,seeds,values\n")
        put(picture := tmp_path / "x" / "grid_picture.png", PICTURE)
    else:
        put(tmp_path / "tables" / "x" / "table" / "cpu.csv", NUMBERS)
        put(tmp_path / "studies" / "x" / "grid" / "table.csv", "row,metric,seeds,values\n")
        put(picture := tmp_path / "studies" / "x" / "grid" / "picture.png", PICTURE)
    put(tmp_path / "x" / "table" / "smoke.csv", NUMBERS)  # a rehearsal is no finding
    page = page_of(PAPER, STUDIES, tmp_path)
    assert [(s.study, s.command) for s in page.sections] == [
        ("x/table", "kdx study study=x/table scale=cpu"),
        ("x/grid", "kdx study study=x/grid"),
    ]
    assert list(page.sections[1].pictures) == [picture] and page.waiting == {"x/later": "Later"}
    assert totals(page) == "1 shown; without a table: x/later"


def test_a_page_says_claim_verdict_and_what_the_paper_prints(tmp_path: Path):
    put(tmp_path / "x" / "table" / "cpu.csv", NUMBERS)
    put(tmp_path / "x" / "table" / "cpu.png", PICTURE)
    put(tmp_path / "x" / "grid.csv", "row,metric,seeds,values\n")
    text = markdown(page_of(PAPER, STUDIES, tmp_path), tmp_path / "papers")
    assert "**The claim.** A works." in text and "# A & B" in text
    assert r"| a is above <b>. | **shown** | 3 | +1.010 [" in text and r"| 1 \| 0 |" in text
    assert "![Table](../x/table/cpu.png)" in text and "[All numbers](../x/table/cpu.md)" in text
    assert text.count(NO_RULE) == 1 and "- `kdx study study=x/later`: Later" in text
    whole = html(page_of(PAPER, STUDIES, tmp_path))
    assert "a is above &lt;b&gt;." in whole and "<b>shown</b>" in whole and "A &amp; B" in whole
    assert base64.b64encode(PICTURE).decode() in whole and "http" not in whole


def test_of_several_folders_each_table_counts_once(tmp_path: Path):
    for folder in ("one", "two"):
        put(tmp_path / folder / "x" / "table" / "cpu.csv", NUMBERS)
    put(tmp_path / "two" / "x" / "grid.csv", "row,metric,seeds,values\n")
    both = merged([page_of(PAPER, STUDIES, tmp_path / folder) for folder in ("one", "two")])
    assert [s.table.relative_to(tmp_path).parts[0] for s in both.sections] == ["one", "two"]
    assert list(both.waiting) == ["x/later"]


def test_only_papers_with_a_table_have_a_page(tmp_path: Path):
    put(tmp_path / "in" / "noise" / "digits.csv", "row,metric,seeds,values\n")
    written = write_papers([tmp_path / "in"], tmp_path / "out")
    assert list(written) == ["papers/noisy_teacher.html"]
    assert [path.name for path in (tmp_path / "out" / "papers").iterdir()] == ["noisy_teacher.html"]
    assert write_papers([tmp_path / "out"], tmp_path / "other") == {} and not (tmp_path / "other").exists()


def test_a_paper_without_studies_is_refused():
    with pytest.raises(UserError, match="'T' needs at least one study"):
        Paper(title="T", source="S", claim="C", studies={})
