"""Curves of a table: their points, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from kdx.core.errors import UserError
from kdx.tables.curves import Curves, draw_curves, points, singles
from kdx.tables.paper_cells import Cell, Sheet

X = {"b": 2.0, "a": 1.0}


def cell(row: str, column: str, *numbers: float) -> Cell:
    values = dict(enumerate(numbers))
    return Cell(row, column, "train/floor", "plain", None, None, 3, "", None, None, None, None, values)


def sheet(*cells: Cell) -> Sheet:
    columns = list(dict.fromkeys(c.column for c in cells))
    by_column = {column: [c for c in cells if c.column == column] for column in columns}
    return Sheet("title", "paper", "last", None, columns, by_column, {}, [])


def curves(log: bool = False) -> Curves:
    return Curves(x=X, x_label="x", y_label="y", log=log)


def test_points_are_means_and_deviations_in_the_order_of_x():
    found = points(sheet(cell("r", "b", 1.0, 2.0, 4.0), cell("r", "a", 3.0), cell("r", "other", 9.0)), curves())
    assert found == {"r": [(1.0, 3.0, 0.0), (2.0, pytest.approx(7 / 3), pytest.approx(np.std([1, 2, 4], ddof=1)))]}


def test_a_logarithmic_axis_leaves_out_what_is_not_positive():
    table = sheet(cell("r", "a", 0.0), cell("r", "b", 2.0), cell("s", "a"), cell("s", "b"))
    assert points(table, curves(log=True)) == {"r": [(2.0, 2.0, 0.0)]}


def test_single_runs_stand_at_their_column_and_a_logarithmic_axis_leaves_out_zeros():
    table = sheet(cell("r", "b", 1.0, 0.0, 4.0), cell("r", "a", 3.0), cell("r", "other", 9.0))
    assert sorted(zip(*singles(table, curves(), "r"), strict=True)) == [(1.0, 3.0), (2.0, 0.0), (2.0, 1.0), (2.0, 4.0)]
    assert sorted(zip(*singles(table, curves(log=True), "r"), strict=True)) == [(1.0, 3.0), (2.0, 1.0), (2.0, 4.0)]


def test_the_picture_is_written_where_there_are_runs(tmp_path: Path):
    draw_curves(sheet(cell("r", "a"), cell("r", "b")), curves(), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    draw_curves(sheet(cell("r", "a", 1.0, 2.0), cell("r", "b", 2.0, 2.5)), curves(log=True), tmp_path / "some.png")
    assert (tmp_path / "some.png").read_bytes().startswith(b"\x89PNG")


def test_columns_must_exist():
    with pytest.raises(UserError, match=r"study\.curves\.x: there is no column 'b'; known: a, c"):
        curves().check({"a": [], "c": []})
    with pytest.raises(UserError, match="at least two columns"):
        Curves(x={"a": 1.0}, x_label="", y_label="", log=False).check({"a": []})
