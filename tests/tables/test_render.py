"""Sheets made by hand, written down."""

import csv
import io
import math
import shutil
import subprocess

import pytest

from kdx.tables.paper_cells import Cell, Printed, Reported, Sheet
from kdx.tables.render import csv as as_csv
from kdx.tables.render import escape, latex, markdown, marks, text
from kdx.tables.statistics import Summary, compare


def reported(protocol="last", provenance="read", runs=5):
    return Reported(
        source="README of a_b & c", provenance=provenance, protocol=protocol, runs=runs, values={"KD": [1.0]}, std={}
    )


def cell(row="KD", *, printed=None, ours=None, hole="", unit="percent", wanted=3, **rest):
    told = {"gain": None, "difference": None, "margin": None, "verdict": None, **rest}
    return Cell(row, "a_1-b_2", "test/top1", unit, printed, ours, wanted, hole, **told)


def sheet(*cells, title="A table", baseline=None, sources=None, notes=()):
    sources = sources or {"src": reported()}
    return Sheet(title, "A. Author, 2020", "last", baseline, ["a_1-b_2"], {"a_1-b_2": cells}, sources, list(notes))


FULL = cell(
    printed=Printed(70.66, None, "src", reported()),
    ours=Summary.of([70.5, 70.9, 71.0]),
    difference=0.14,
    margin=0.5,
    verdict="not distinguishable",
)
HOLE = cell("C&C_1", printed=Printed(69.6, 0.24, "src", reported()), hole="not built: method=cc")


def line_of(written: str, start: str) -> str:
    return next(line for line in written.splitlines() if line.startswith(start))


def test_markdown_line():
    assert line_of(markdown(sheet(FULL)), "| KD") == (
        "| KD | 70.66<sup>r</sup> | 70.80 ± 0.26 (3) | +0.14 (±0.50) | not distinguishable |"
    )


def test_a_hole_is_seen_everywhere():
    page = sheet(FULL, HOLE)
    assert "**[not built: method=cc]**" in line_of(markdown(page), "| C&C_1")
    assert "69.60 ± 0.24<sup>r</sup>" in line_of(markdown(page), "| C&C_1")
    assert r"\textbf{[not built: method=cc]}" in latex(page)
    assert "[not built: method=cc]" in text(page)
    assert as_csv(page).splitlines()[2].endswith(",not built: method=cc,,")


def test_a_cell_that_lacks_seeds_says_so():
    part = cell(ours=Summary.of([70.0, 71.0]), wanted=5, hole="not run")
    assert "**(2 of 5)**" in markdown(sheet(part))


def test_every_row_has_the_header_s_width():
    gain = compare({0: 3.0, 1: 4.0, 2: 5.5}, {0: 2.0, 1: 3.0, 2: 4.0})
    for page in (sheet(FULL, HOLE), sheet(cell(ours=Summary.of([1.0]), gain=gain), HOLE, baseline="alone")):
        lines = [line for line in markdown(page).splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
        rows = [line for line in latex(page).splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        assert len({line.replace("\\&", "").count(" & ") for line in rows[2:]}) == 1


def test_gain_shows_its_interval():
    three = compare({0: 3.0, 1: 4.0, 2: 5.5}, {0: 2.0, 1: 3.0, 2: 4.0})
    low, high = three.interval
    assert f"+1.17 [{low:+.2f}, {high:+.2f}]" in markdown(sheet(cell(gain=three), baseline="alone"))
    assert "| difference to alone [95 % over seeds] |" in markdown(sheet(cell(gain=three), baseline="alone"))
    one = compare({0: 3.0}, {0: 2.0})
    assert "| +1.00 |" in markdown(sheet(cell(gain=one), baseline="alone"))


@pytest.mark.parametrize(
    ("provenance", "protocol", "mark"),
    [
        ("read", "last", "r"),
        ("secondary", "last", "s"),
        ("memory", "last", "m"),
        ("measured", "last", "i"),
        ("read", "best_on_test", "r,b"),
        ("read", "unstated", "r,u"),
    ],
)
def test_marks(provenance, protocol, mark):
    of = reported(protocol, provenance)
    printed = Printed(1.0, None, "src", of)
    assert marks(printed, "last") == mark
    page = markdown(sheet(cell(printed=printed), sources={"src": of}))
    legend = line_of(page, "- marks:")
    assert all(f" {letter} " in legend for letter in mark.split(","))


def test_sources_are_named_with_protocol_and_runs():
    assert "- reported (KD): README of a_b & c; read in the source; last epoch; mean of 5 runs" in markdown(sheet(FULL))


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("a_b & 100 % #1", r"a\_b \& 100 \% \#1"),
        (r"\x{y}", r"\textbackslash{}x\{y\}"),
        ("a>b<c^d~e", r"a\textgreater{}b\textless{}c\textasciicircum{}d\textasciitilde{}e"),
        ("1 ± 2", r"1 $\pm$ 2"),
    ],
)
def test_latex_escapes(plain, escaped):
    assert escape(plain) == escaped


def test_latex_has_no_bare_specials():
    page = latex(sheet(FULL, HOLE, title="50 % of a_b #1", notes=["100 % of {x}"]))
    assert page.count("\\begin") == page.count("\\end")
    body = page.split("\n", 1)[1]
    for sign in "%#_":
        assert body.replace(f"\\{sign}", "").count(sign) == 0
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert rule in page


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(tmp_path):
    head = "\\documentclass{article}\\usepackage{booktabs,longtable}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(head + latex(sheet(FULL, HOLE)) + "\\end{document}\n")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)


def test_csv_carries_numbers_whole():
    ours = Summary.of([70.1234567891, 71.0, 0.1])
    row = next(csv.DictReader(io.StringIO(as_csv(sheet(cell('a,"b"\nc', printed=FULL.printed, ours=ours))))))
    assert row["row"] == 'a,"b"\nc'
    assert (float(row["mean"]), float(row["std"]), int(row["n"])) == (ours.mean, ours.std, 3)
    assert (float(row["low"]), float(row["high"])) == ours.interval
    assert (row["reported"], row["provenance"], row["reported_protocol"]) == ("70.66", "read", "last")
    assert row["verdict"] == row["difference"] == row["hole"] == ""


def test_csv_leaves_out_what_is_no_number():
    single = Summary.of([1.0])
    assert math.isnan(single.std)
    row = next(csv.DictReader(io.StringIO(as_csv(sheet(cell(ours=single))))))
    assert row["std"] == row["low"] == row["reported"] == ""


def test_units():
    errors = cell(printed=Printed(146, None, "src", reported()), ours=Summary.of([140.0, 150.0, 148.0]), unit="errors")
    assert "| KD | 146<sup>r</sup> | 146.0 ± 5.3 (3) |" in markdown(sheet(errors))
    assert "| test errors | reported | ours ± sd (n) |" in markdown(sheet(errors))
    plain = cell(printed=Printed(1.33e-6, None, "src", reported()), unit="plain")
    assert "| KD | 1.33e-06<sup>r</sup>" in markdown(sheet(plain))


def test_a_terminal_gets_the_columns_with_something_in_them():
    columns = [f"c{i}" for i in range(50)]
    cells = {column: [cell(hole="not run")] for column in columns}
    cells["c7"] = [cell(ours=Summary.of([1.0]))]
    page = Sheet("T", "P", "last", None, columns, cells, {}, [])
    shown = text(page)
    assert "\nc7\n" in shown and "\nc8\n" not in shown and "not run yet: c0, c1" in shown


def test_a_gain_that_survives_holm_is_marked_and_another_is_not():
    sure = compare({0: 3.0, 1: 4.0, 2: 5.5}, {0: 2.0, 1: 3.0, 2: 4.499})
    unsure = compare({0: 3.0, 1: 4.0, 2: 5.5}, {0: 2.0, 1: 4.0, 2: 4.0})
    page = markdown(sheet(cell("sure", gain=sure), cell("unsure", gain=unsure), baseline="alone"))
    assert "] *" in line_of(page, "| sure") and "*" not in line_of(page, "| unsure").replace("**", "")


def test_an_arrow_points_to_better_numbers():
    page = sheet(cell(unit="errors", ours=Summary.of([1.0])))
    arrowed = Sheet(*list(vars(page).values())[:8], {"a_1-b_2": "↓"})
    assert "| test errors ↓ |" in markdown(arrowed)


def test_the_csv_has_the_number_of_each_seed():
    row = next(
        csv.DictReader(io.StringIO(as_csv(sheet(cell(ours=Summary.of([70.0, 71.5]), values={3: 70.0, 5: 71.5})))))
    )
    assert (row["seeds"], row["values"]) == ("3 5", "70.0 71.5")
