"""Rendering of a sheet as Markdown, LaTeX, CSV and text: reported, ours, difference, verdict and notes.

The four formats share the rows and their marks, so they stay in one file.
"""

import csv as csv_module
import io
import math
import re
from collections.abc import Callable

from kdx.core.metric import Metric, fixed
from kdx.tables.footnotes import align, as_cell, pipes
from kdx.tables.gains import show_gain, show_whole
from kdx.tables.multiplicity import holm
from kdx.tables.paper_cells import DIGITS, PROVENANCE, UNITS, Cell, Printed, Sheet

# one letter per provenance, and one per protocol different from ours
PROVENANCE_MARKS = {"read": "r", "secondary": "s", "memory": "m", "measured": "i"}
PROTOCOL_MARKS = {"last": "l", "best_on_test": "b", "val_selected": "v", "unstated": "u"}
PROTOCOL_NAMES = {
    "last": "last epoch",
    "best_on_test": "best epoch on the test set",
    "val_selected": "best epoch on a validation split",
    "unstated": "epoch not stated",
}
SEEDED, WHOLE = "[95 % over seeds]", "[over seeds and examples]"
FEW_CELLS = 40  # maximum number of cells shown in full in a terminal
CSV_HEADER = [
    *("row", "column", "metric", "unit"),
    *("reported", "reported_std", "reported_runs", "source", "provenance", "reported_protocol"),
    *("protocol", "mean", "std", "n", "wanted", "low", "high"),
    *("gain", "gain_low", "gain_high", "gain_low_with_examples", "gain_high_with_examples", "gain_p", "gain_p_holm"),
    *("difference", "margin", "verdict", "hole", "seeds", "values"),
]
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "‖": r"$\Vert$",
}


def markdown(sheet: Sheet) -> str:
    """Markdown with a section per column."""
    lines = [f"# {sheet.title}", "", sheet.paper, ""]
    for column in sheet.columns:
        lines += [f"## {column}", "", pipes(_header(sheet, column))]
        lines.append("|:--" + "|--:" * (len(_header(sheet, column)) - 2) + "|:--|")
        lines += [pipes([_bars(c) for c in _row(cell, sheet, _sup, _bold)]) for cell in sheet.cells[column]]
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in _below(sheet)), ""])


def latex(sheet: Sheet) -> str:
    r"""LaTeX longtable with booktabs rules: needs \usepackage{booktabs,longtable}."""
    header = _header(sheet, sheet.columns[0])[1:]
    width = len(header) + 1
    lines = [
        "% needs \\usepackage{booktabs,longtable}",
        f"\\begin{{longtable}}{{l{'r' * (width - 2)}l}}",
        f"\\caption{{{escape(sheet.title)}}}\\\\",
        "\\toprule",
        " & ".join(["", *map(escape, header)]).lstrip() + " \\\\",
    ]
    for column in sheet.columns:
        what = _header(sheet, column)[0]
        lines += ["\\midrule", f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{escape(f'{column}: {what}')}}}}} \\\\"]
        for cell in sheet.cells[column]:
            lines.append(" & ".join(_row(cell, sheet, _tex_sup, _tex_bold, escape)) + " \\\\")
    lines += ["\\bottomrule", "\\end{longtable}", "\\begin{footnotesize}", f"\\noindent {escape(sheet.paper)}", ""]
    for note in _below(sheet):
        lines += [f"\\noindent {escape(note)}", ""]
    return "\n".join([*lines[:-1], "\\end{footnotesize}", ""])


def csv(sheet: Sheet) -> str:
    """CSV with one line per cell: all its numbers, unrounded, in its unit; empty if missing."""
    out = io.StringIO()
    writer = csv_module.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    every = [(cell.row, column, cell) for column in sheet.columns for cell in sheet.cells[column]]
    adjusted = holm({(row, column): c.gain.p for row, column, c in every if c.gain is not None and c.gain.enough})
    for row, column, cell in every:
        values = _values(cell, sheet, adjusted.get((row, column)))
        writer.writerow(["" if _nothing(value) else as_cell(value) for value in values])
    return out.getvalue()


def text(sheet: Sheet) -> str:
    """Text for a terminal: all columns of a small table, else those with our numbers."""
    total = sum(map(len, sheet.cells.values()))
    run = [column for column in sheet.columns if any(cell.ours for cell in sheet.cells[column])]
    shown = list(sheet.columns) if total <= FEW_CELLS else run
    lines = [sheet.title]
    for column in shown:
        grid = [
            _header(sheet, column),
            *(_row(cell, sheet, lambda mark: f" {mark}", str) for cell in sheet.cells[column]),
        ]
        rows = align(grid)
        lines += ["", column, "-" * len(rows[0]), *rows]
    hidden = [column for column in sheet.columns if column not in shown]
    if hidden:
        lines += ["", f"not run yet: {', '.join(hidden)}"]
    return "\n".join([*lines, "", *_below(sheet)])


def escape(plain: str) -> str:
    """Escape text for LaTeX."""
    return "".join(SPECIAL.get(sign, sign) for sign in plain)


def marks(printed: Printed, protocol: str) -> str:
    """ "r", or "r,b": provenance of a published number, and its protocol if different from ours."""
    own = PROVENANCE_MARKS[printed.of.provenance]
    return own if printed.of.protocol == protocol else f"{own},{PROTOCOL_MARKS[printed.of.protocol]}"


def _header(sheet: Sheet, column: str) -> list[str]:
    first = sheet.cells[column][0]
    what = f"{first.metric}, {UNITS[first.unit]}" if first.unit == "percent" else UNITS[first.unit] or first.metric
    gain = [f"difference to {sheet.baseline} {SEEDED}"] if sheet.baseline is not None else []
    gain += [WHOLE] if _has_whole(sheet) else []
    what = f"{what} {sheet.arrows[column]}" if column in sheet.arrows else what
    return [what, "reported", "ours ± sd (n)", *gain, "ours - reported (± margin)", "verdict"]


def _has_whole(sheet: Sheet) -> bool:
    return any(c.gain is not None and c.gain.whole is not None for of in sheet.cells.values() for c in of)


def _row(
    cell: Cell,
    sheet: Sheet,
    sup: Callable[[str], str],
    bold: Callable[[str], str],
    clean: Callable[[str], str] = lambda plain: plain,
) -> list[str]:
    """The cells of a line; a dash for absent numbers, a hole for missing ones."""
    reported = "-"
    if cell.printed is not None:
        spread = "" if cell.printed.std is None else f" ± {_number(cell.printed.std, cell)}"
        mark = sup(marks(cell.printed, sheet.protocol))
        reported = f"{clean(_number(cell.printed.value, cell) + spread)}{mark}"
    ours = bold(clean(f"[{cell.hole}]"))
    if cell.ours is not None:
        whole = cell.ours.n >= cell.wanted
        n = f"({cell.ours.n})" if whole else f"({cell.ours.n} of {cell.wanted})"
        ours = clean(f"{cell.ours.show(1, _digits(cell))} ") + (clean(n) if whole else bold(clean(n)))
    difference = "-" if cell.difference is None else _signed(cell.difference, cell)
    difference += "" if cell.margin is None else f" (±{fixed(cell.margin, _digits(cell))})"
    gain = [clean(part) for part in _gain(cell, sheet)] if sheet.baseline is not None else []
    return [clean(cell.row), reported, ours, *gain, clean(difference), cell.verdict or "-"]


def _gain(cell: Cell, sheet: Sheet) -> list[str]:
    """The difference with its interval over seeds, and the interval over seeds and examples where some cell has one."""
    gain, both = cell.gain, _has_whole(sheet)
    if gain is None:
        return ["-"] * (1 + both)
    metric = Metric(name=cell.metric, label="", digits=_digits(cell))
    shown = [show_gain(gain, metric), *([show_whole(gain, metric)] if both else [])]
    if (cell.row, cell.column) in sheet.kept:
        shown[-1] += " *"
    return shown


def _digits(cell: Cell) -> int:
    return DIGITS[cell.unit]


def _signed(value: float, cell: Cell) -> str:
    return fixed(value, _digits(cell), sign=True)


def _number(value: float, cell: Cell) -> str:
    """A published number with its printed digits, or two in percent."""
    shown = repr(float(value)).removesuffix(".0")
    whole = fixed(value, _digits(cell))
    return whole if cell.unit == "percent" and len(whole) >= len(shown) else shown


def _below(sheet: Sheet) -> list[str]:
    """Sources of the published numbers, legend of the marks, and the notes."""
    shown = [cell.printed for of in sheet.cells.values() for cell in of if cell.printed is not None]
    lines = []
    for key, of in sheet.sources.items():
        if not any(printed.source == key for printed in shown):
            continue
        runs = "runs not stated" if of.runs is None else f"mean of {of.runs} runs" if of.runs > 1 else "1 run"
        lines.append(
            f"reported ({', '.join(of.values)}): {of.source}; {PROVENANCE[of.provenance]}; "
            f"{PROTOCOL_NAMES[of.protocol]}; {runs}"
        )
    used = {printed.of.provenance for printed in shown}
    legend = [f"{mark} {PROVENANCE[name]}" for name, mark in PROVENANCE_MARKS.items() if name in used]
    other = {printed.of.protocol for printed in shown} - {sheet.protocol}
    legend += [
        f"{mark} {PROTOCOL_NAMES[name]}, another protocol than ours: not compared"
        for name, mark in PROTOCOL_MARKS.items()
        if name in other
    ]
    return [*lines, *(["marks: " + "; ".join(legend)] if legend else []), *sheet.notes]


def _values(cell: Cell, sheet: Sheet, adjusted: float | None) -> list[object]:
    printed, ours, gain = cell.printed, cell.ours, cell.gain
    return [
        cell.row,
        cell.column,
        cell.metric,
        cell.unit,
        *(
            (printed.value, printed.std, printed.of.runs, printed.source, printed.of.provenance, printed.of.protocol)
            if printed
            else [None] * 6
        ),
        sheet.protocol,
        *((ours.mean, ours.std, ours.n) if ours else [None] * 3),
        cell.wanted,
        *(ours.interval if ours else [None] * 2),
        *((gain.gain.mean, *gain.interval, *(gain.whole or (None, None)), gain.p) if gain else [None] * 6),
        adjusted,
        cell.difference,
        cell.margin,
        cell.verdict,
        cell.hole,
        " ".join(map(str, cell.values)),
        " ".join(map(str, cell.values.values())),
    ]


def _nothing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _sup(mark: str) -> str:
    return f"<sup>{mark}</sup>"


def _tex_sup(mark: str) -> str:
    return f"\\textsuperscript{{{mark}}}"


def _bold(plain: str) -> str:
    return f"**{plain}**"


def _tex_bold(plain: str) -> str:
    return f"\\textbf{{{plain}}}"


def _bars(cell: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", cell)
