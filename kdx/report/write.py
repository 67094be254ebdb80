"""A report on disk: the page and its figures."""

from collections.abc import Sequence
from pathlib import Path

from kdx.report.collect import collect
from kdx.report.figures import draw_figures
from kdx.report.groups import group_runs
from kdx.report.page import page
from kdx.report.papers import write_papers
from kdx.report.payload import curves_of, payload, predictions_of


def write_report(places: Sequence[Path], folder: Path, title: str, predict: bool, pictures: bool) -> list[str]:
    """Write `index.html`, the figures as PNG files, and a page for each paper whose tables lie in the directories.

    Args:
        places: Directories with runs.
        folder: Output folder.
        title: Heading of the page.
        predict: Whether to recompute missing predictions, which loads data and networks.
        pictures: Whether to draw the PNG files.

    Returns:
        Notes for the reader, one line each.

    Raises:
        UserError: There is no finished run, or the folder cannot be written.
    """
    found = collect(places)
    notes = list(found.problems)
    if predict:
        from kdx.report.recompute import fill_predictions

        notes += fill_predictions(found.runs)
    grouped = group_runs(found.runs)
    damaged: list[str] = []
    training, predicted = curves_of(grouped, damaged), predictions_of(grouped, damaged)
    notes += damaged
    found.problems.extend(damaged)
    folder.mkdir(parents=True, exist_ok=True)
    written = write_papers(places, folder)
    contents = payload(found, grouped, training, predicted, title)
    (folder / "index.html").write_text(page(contents, written), encoding="utf-8")
    if pictures:
        draw_figures(grouped, training, predicted, folder)
    runs = sum(len(group.runs) for group in grouped.groups)
    left_out = {"unfinished": len(found.unfinished), "that another repeats": len(found.runs) - runs}
    told = "".join(f", {n} {which} left out" for which, n in left_out.items() if n)
    if written:
        notes.append(f"{len(written)} pages of papers in {folder / 'papers'}")
    notes.append(f"{runs} runs in {len(grouped.groups)} groups{told}")
    return notes
