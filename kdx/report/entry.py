"""The entry of `kdx report`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from kdx.core.errors import UserError, did_you_mean, printable
from kdx.core.notice import say, say_error, stop

HELP = """\
kdx report FOLDER ... [to=FOLDER] [title=TEXT] [predict=true] [pictures=false]

Writes index.html, a self-contained page about all finished runs below the folders, and its figures as PNG
files; and papers/NAME.html for each paper of study=papers/all whose tables lie in a folder: its claim, what ran, the
figures, and the verdicts beside what the paper prints.

  to         output folder; default: "report" below the first folder
  title      heading of the page
  predict    true computes missing predictions from the exported students, for reliability and confusion; takes
             a pass over the test set per run
  pictures   false writes no PNG files

  kdx report outputs
  kdx report outputs/runs to=results title="Temperature on CIFAR-100"
"""
KEYS = ("to", "title", "predict", "pictures")


def main(arguments: Sequence[str]) -> None:
    """Write a report and exit: 0 done, 1 it could not be written, 2 wrong usage."""
    if any(a in ("-h", "--help") for a in arguments):
        print(HELP, end="")
        return
    places, given = [], {"predict": "false", "pictures": "true"}
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if argument.startswith("-"):
            stop(2, [f"unknown option '{argument}'; write settings without dashes: predict=true"])
        if not sign or Path(argument).exists():
            places.append(Path(argument))
        elif key not in KEYS:
            stop(2, [f"unknown setting '{key}'{did_you_mean(key, KEYS)}"])
        else:
            given[key] = value
    for key in ("predict", "pictures"):
        if given[key] not in ("true", "false"):
            stop(2, [f"{key}={given[key]} must be true or false"])
    for place in places:
        if not place.is_dir():
            stop(2, [f"{place}: no such directory"])
    if not places:
        stop(2, ["needs a folder: kdx report outputs"])
    folder = Path(given["to"]) if "to" in given else places[0] / "report"
    title = given["title"] if "title" in given else f"Runs in {', '.join(map(str, places))}"
    from kdx.report.write import write_report

    try:
        notes = write_report(places, folder, title, given["predict"] == "true", given["pictures"] == "true")
    except (UserError, OSError) as error:
        say_error(error)
        sys.exit(1)
    for note in notes:
        say(note)
    print(printable(str(folder / "index.html")))
