"""`kdx predict RUN INPUT`: answers of a finished run's student on files of the user."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kdx.config.layout import take_config_dirs
from kdx.core.arguments import places_and_settings
from kdx.core.errors import DamagedError, UserError, printable
from kdx.core.notice import fail

if TYPE_CHECKING:
    from torch import Tensor

    from kdx.runs.results import Protocol
    from kdx.runs.use.stored import Stored

HELP = """\
kdx predict RUN INPUT [to=FILE] [protocol=last|val_selected] [threshold=0.5] [text=COLUMN] [second=COLUMN] [batch=64]

Prints a table with tabs: a line for each input, with its class, or the labels that hold, and the probability of each.

  RUN          directory of a finished run, such as outputs/runs/digits-kd-...
  INPUT        images: a file, or a folder with all below it. Texts: a .txt with one a line, a .tsv or a .csv
  to           file of the table, with commas if it ends in .csv; default: standard output
  protocol     the student at the last step, or the one that was best on validation; default: last
  threshold    probability from which on a label holds, for tasks of several labels; default: for each label
               the one with the best F1 on the validation split
  text         column of the texts in a .tsv or .csv, a name or a number from 0; default: the data set's
  second       column of the second text of pairs; default: the data set's
  batch        inputs at a time; default: 64

  kdx predict outputs/runs/imagefolder-kd-... photos
  kdx predict outputs/runs/sst2-kd-... reviews.txt to=answers.tsv
"""
KEYS = ("to", "protocol", "threshold", "text", "second", "batch")


def main(arguments: Sequence[str]) -> None:
    """Print or write the answers, and exit: 0 done, 1 a file is missing or damaged, 2 wrong usage."""
    if any(a in ("-h", "--help") for a in arguments) or not arguments:
        print(HELP, end="")
        sys.exit(0 if arguments else 2)
    try:
        places, given = places_and_settings(take_config_dirs(arguments), KEYS, "see kdx predict --help")
    except UserError as error:
        fail(2, error)
    if len(places) != 2:
        fail(2, UserError(f"needs a run and its input, kdx predict RUN INPUT; found {len(places)} of the two"))
    try:
        protocol = protocol_of(given)
        threshold = _number(given, "threshold", 0, 1)
        batch = _number(given, "batch", 1, 1e6)
    except UserError as error:
        fail(2, error)
    from kdx.runs.use.answers import answer_names, outputs, table
    from kdx.runs.use.given import given_inputs
    from kdx.runs.use.stored import stored

    try:
        run = stored(Path(places[0]), protocol)
        found = given_inputs(run, Path(places[1]), _column(given, "text"), _column(given, "second"))
        size, limits = int(batch or 64), None
        if run.task.kind == "labels":
            limits = _limits(run, size, threshold)
        elif threshold is not None:
            raise UserError(f"threshold is for several labels, and the task of {run.dataset.name} is {run.task.kind}")
        heads, rows = table(run, answer_names(run), outputs(run, found.data, size), limits)
        lines = [[found.head, *heads], *([name, *row] for name, row in zip(found.names, rows, strict=True))]
        if "to" not in given:
            _write(lines, sys.stdout, "\t")
            return
        with open(given["to"], "w", encoding="utf-8", newline="") as file:
            _write(lines, file, "," if given["to"].endswith(".csv") else "\t")
        print(printable(given["to"]))
    except (UserError, ValueError, OSError) as error:
        fail(1, error)


def protocol_of(given: dict[str, str]) -> "Protocol":
    """The protocol among the settings; "last" without one. Raises UserError for another."""
    match given:
        case {"protocol": "last" | "val_selected" as protocol}:
            return protocol
        case {"protocol": other}:
            raise UserError(f"protocol={other} must be last or val_selected")
    return "last"


def _number(given: dict[str, str], key: str, low: float, high: float) -> float | None:
    if key not in given:
        return None
    try:
        value = float(given[key])
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UserError(f"{key}={given[key]} must be a number from {low:g} to {high:g}")
    return value


def _column(given: dict[str, str], key: str) -> str | int | None:
    if key not in given:
        return None
    return int(given[key]) if given[key].isdigit() else given[key]


def _limits(run: "Stored", batch: int, threshold: float | None) -> "Tensor":
    """The logit from which on each label holds."""
    import torch

    from kdx.runs.use.answers import label_limits

    if threshold is not None:
        return torch.tensor(threshold, dtype=torch.float64).logit()
    try:
        return label_limits(run, batch)
    except DamagedError:
        raise
    except UserError as error:
        raise UserError(f"{error}; threshold=0.5 needs none") from error


def _write(lines: Sequence[Sequence[str]], file: TextIO, delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerows([[printable(cell) for cell in line] for line in lines])
