"""Footnotes common to all tables, and the alignment of cells."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

PROTOCOLS = {
    "last": "the last epoch",
    "best_on_test": "the epoch that was best on the test set (optimistic)",
    "val_selected": "the epoch that was best on the validation split",
}


def footnotes(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on data, length, hardware and code of runs.

    Args:
        runs: Contents of their `result.json`; at least one.
    """
    tested = counts({d["examples"]["test"] for d in runs})
    trained = counts({d["examples"]["training"] for d in runs})
    steps = counts({d["steps"] for d in runs})
    devices = sorted({f"{d['device']['name']} ({d['device']['threads']} threads)" for d in runs})
    torch = sorted({d["versions"]["torch"] for d in runs})
    commits = sorted({commit(d["code"]) for d in runs})
    notes = [
        f"{trained} training and {tested} test examples; {steps} steps a run",
        f"{', '.join(devices)}; torch {', '.join(torch)}; {', '.join(commits)}",
    ]
    if fused := [d["fused"] for d in runs if "fused" in d and d["fused"] > 1]:
        notes.append(
            f"{len(fused)} of {len(runs)} runs trained together with others, up to {max(fused)} at a time: their times "
            "hold their share of data and teacher and are not comparable"
        )
    return notes


def counts(values: set[int]) -> str:
    """ "1,500", or "300 to 1,500" if runs differ."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def commit(code: Mapping[str, object]) -> str:
    if code["commit"] is None:
        return "kdx outside a git checkout"
    return f"commit {str(code['commit'])[:10]}" + (" with local changes" if code["dirty"] else "")


def pipes(cells: Sequence[str]) -> str:
    """Format a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def align(grid: Sequence[Sequence[str]]) -> list[str]:
    """Align rows for a terminal: the first column left, the others right."""
    widths = [max(len(row[i]) for row in grid) for i in range(len(grid[0]))]
    return [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in grid
    ]


def as_cell(value: object) -> object:
    """A value of a CSV file; a text that a spreadsheet would take for a formula begins with an apostrophe.

    Texts of numbers alone, such as the values of single runs, stay as they are.

    Example:
        >>> as_cell("=cmd()"), as_cell("KD"), as_cell("-0.5 0.25")
        ("'=cmd()", 'KD', '-0.5 0.25')
    """
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula and not re.fullmatch(r"[-+0-9.e ]+", str(value)) else value
