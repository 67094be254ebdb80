"""Notes below a reproduced table: how to read the numbers, how they were made, and what is missing."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from kdx.core.metric import Metric
from kdx.tables.footnotes import PROTOCOLS, footnotes
from kdx.tables.gains import legend
from kdx.tables.paper_cells import DIGITS, UNITS, Cell, Unit
from kdx.tables.statistics import CONFIDENCE, ENOUGH


class Preset(Protocol):
    """The part of a table's preset that the captions use."""

    @property
    def overrides(self) -> Sequence[str]: ...
    @property
    def seeds(self) -> Sequence[int]: ...
    @property
    def paper(self) -> bool: ...


class Facts(Protocol):
    """The part of a table config that the captions use."""

    @property
    def protocol(self) -> str: ...
    @property
    def baseline(self) -> str | None: ...
    @property
    def shows(self) -> Literal["metric", "gain"]: ...
    @property
    def scales(self) -> Mapping[str, Preset]: ...


def captions(table: Facts, scale: str, cells: Sequence[Cell], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for the notes of a table.

    Args:
        table: The table.
        scale: The preset shown.
        cells: The cells, without the teachers'.
        runs: Contents of the runs' `result.json`.
    """
    preset, percent = table.scales[scale], f"{100 * CONFIDENCE:.0f} %"
    notes = [
        f"ours: mean ± sample standard deviation (sd) over n of {len(preset.seeds)} seeds, numbers of "
        f"{PROTOCOLS[table.protocol]}; scale {scale}: {' '.join(preset.overrides) or 'the recipe to the letter'}"
    ]
    if preset.paper:
        notes.append(
            f"a verdict compares numbers of one protocol and test set over seeds, from {ENOUGH} seeds on: a difference "
            f"within the margin of {percent} is not distinguishable, which does not make it equal (Welch's where the "
            "source prints deviation and runs); a source that prints no deviation is taken to spread as ours does, and "
            "one that does not count its runs to have one"
        )
    if table.shows == "gain":
        notes.append(f"all numbers are gains over {table.baseline}, ours seed by seed")
    elif table.baseline is not None:
        gains = [cell.gain for cell in cells if cell.gain is not None]
        units: list[Unit] = list(dict.fromkeys(cell.unit for cell in cells if cell.gain is not None))
        one = Metric(name="", label=UNITS[units[0]], digits=DIGITS[units[0]]) if len(units) == 1 else None
        notes += legend(gains, one) if gains else []
    notes += footnotes(runs) if runs else []
    few = sum(cell.ours is not None and cell.ours.n < ENOUGH for cell in cells)
    if few:
        notes.append(f"fewer than {ENOUGH} seeds in {few} cells: their spread says little, so there is no verdict")
    reasons: dict[str, int] = {}
    for cell in cells:
        if cell.hole:
            reasons[cell.hole] = reasons.get(cell.hole, 0) + 1
    if reasons:
        notes.append("holes: " + "; ".join(f"{reason} ({n})" for reason, n in reasons.items()))
    return notes
