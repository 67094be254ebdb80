"""The entry of `kdx report`."""

from collections.abc import Sequence
from pathlib import Path

from kdx.core.arguments import places_and_settings
from kdx.core.errors import UserError, printable
from kdx.core.notice import fail, say, stop

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
    try:
        found, own = places_and_settings(arguments, KEYS, "write settings without dashes: predict=true")
    except UserError as error:
        fail(2, error)
    places, given = [Path(place) for place in found], {"predict": "false", "pictures": "true"} | own
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
        fail(1, error)
    for note in notes:
        say(note)
    print(printable(str(folder / "index.html")))
