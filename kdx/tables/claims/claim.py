"""A claim as a study's YAML states it: a sentence, and requirements on the table's numbers that all must hold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from kdx.core.errors import UserError
from kdx.tables.statistics import Summary

Values = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Numbers by row, column and seed."""
Take = Literal["slope", "lowest", "highest"]
Expect = Literal["above", "below", "equal"]
TAKES = {"slope": "slope", "lowest": "place of the lowest", "highest": "place of the highest"}


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number of each seed: a cell, a difference of two cells, or a number of a row or column of cells.

    Attributes:
        row: A row; or rows with a number x each.
        column: A column; or columns with a number x each. At most one of row and column has numbers.
        minus: Row that is subtracted, cell by cell and seed by seed; None for none.
        take: Of cells with numbers x: the least-squares slope over x, or the x of the lowest or highest cell, the
            first of equal ones. The slope has the unit of the cells per unit of x.
    """

    row: str | Mapping[str, float]
    column: str | Mapping[str, float]
    minus: str | None = None
    take: Take = "slope"

    def __post_init__(self):
        if self.take not in TAKES:
            raise UserError(f"take must be one of {', '.join(TAKES)}, found {self.take!r}")
        if not isinstance(self.row, str) and not isinstance(self.column, str):
            raise UserError("at most one of row and column can be a mapping of names to numbers")
        if len(self.points) < 2 and not self.plain:
            raise UserError(f"a {TAKES[self.take]} needs at least two cells with a number each")
        if len(set(self.points.values())) < 2 and not self.plain:
            raise UserError("the numbers of the cells must differ")

    @property
    def plain(self) -> bool:
        """Whether it is one cell, or the difference of two."""
        return isinstance(self.row, str) and isinstance(self.column, str)

    @property
    def points(self) -> dict[tuple[str, str], float]:
        """The number x of each cell (row, column); 0 for a single cell."""
        rows = {self.row: 0.0} if isinstance(self.row, str) else self.row
        columns = {self.column: 0.0} if isinstance(self.column, str) else self.column
        return {(r, c): float(x) + float(y) for r, x in rows.items() for c, y in columns.items()}

    @property
    def rows(self) -> set[str]:
        return {row for row, _ in self.points} | ({self.minus} if self.minus is not None else set())

    @property
    def columns(self) -> set[str]:
        return {column for _, column in self.points}

    @property
    def has_unit(self) -> bool:
        """Whether its numbers have the unit of the cells; a place on x has not."""
        return self.plain or self.take == "slope"

    @property
    def grain(self) -> float:
        """Smallest distance of two places on x, of a place; 0 for numbers with a unit."""
        x = sorted(set(self.points.values()))
        return 0.0 if self.has_unit else min(b - a for a, b in pairwise(x))

    def lacking(self, values: Values) -> list[str]:
        """Cells without any number, as "ROW, COLUMN"."""
        cells = [(row, column) for column in sorted(self.columns) for row in sorted(self.rows)]
        wanted = {(r, c) for r, c in self.points} | {(self.minus, c) for c in self.columns if self.minus is not None}
        return [f"{r}, {c}" for r, c in cells if (r, c) in wanted and not values.get(r, {}).get(c)]

    def of(self, values: Values) -> dict[int, float]:
        """The number of each seed that every cell has."""
        cells = {place: values.get(place[0], {}).get(place[1], {}) for place in self.points}
        base = {place: values.get(self.minus or "", {}).get(place[1], {}) for place in self.points}
        parts = [*cells.values(), *(base.values() if self.minus is not None else ())]
        seeds = sorted(set.intersection(*(set(of) for of in parts)))
        found = {}
        for seed in seeds:
            y = [of[seed] - (base[p][seed] if self.minus is not None else 0.0) for p, of in cells.items()]
            found[seed] = y[0] if self.plain else _taken(self.take, list(self.points.values()), y)
        return found

    def __str__(self) -> str:
        """ "KD, 10 %"; "slope of DKD - KD over 10 % ... 100 %"."""
        if isinstance(self.row, str) and isinstance(self.column, str):
            row = self.row if self.minus is None else f"{self.row} - {self.minus}"
            return f"{row}, {self.column}"
        names = list(self.column if isinstance(self.row, str) else self.row)
        fixed = self.row if isinstance(self.row, str) else self.column
        fixed = fixed if self.minus is None else f"{fixed} - {self.minus}"
        return f"{TAKES[self.take]} of {fixed} over {names[0]} ... {names[-1]}"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A statement about two quantities.

    Attributes:
        left: The first quantity.
        expect: "above" or "below": left - right is beyond the margin on this side; "equal": within it.
        right: The second quantity, paired with the first by seed; or a number.
        margin: Not negative; in the unit of the claim.
    """

    left: Quantity
    expect: Expect
    right: Quantity | float
    margin: float

    def __post_init__(self):
        if self.expect not in ("above", "below", "equal"):
            raise UserError(f"expect must be above, below or equal, found {self.expect!r}")
        if not math.isfinite(self.margin) or self.margin < 0 or (self.expect == "equal" and self.margin == 0):
            raise UserError("margin must be a number of at least 0, and above 0 for expect: equal")
        if isinstance(self.right, Quantity) and self.right.has_unit != self.left.has_unit:
            raise UserError("left and right have different units: a place on x cannot be compared with a number there")

    @property
    def quantities(self) -> list[Quantity]:
        return [self.left, *([self.right] if isinstance(self.right, Quantity) else [])]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of a paper, or an expectation of a control, as a rule that is written before the runs.

    Attributes:
        sentence: The claim.
        printed: The finding that the paper prints, with its numbers; None where it prints none.
        unit: Of the numbers: "%" for fractions, which are shown and compared times 100; else any text.
        requires: All must hold.
    """

    sentence: str
    printed: str | None
    unit: str
    requires: Sequence[Requirement]


def _taken(take: Take, x: Sequence[float], y: Sequence[float]) -> float:
    if take != "slope":
        return x[y.index(min(y) if take == "lowest" else max(y))]
    center, middle = Summary.of(x).mean, Summary.of(y).mean
    above = math.fsum((a - center) * (b - middle) for a, b in zip(x, y, strict=True))
    return above / math.fsum((a - center) ** 2 for a in x)
