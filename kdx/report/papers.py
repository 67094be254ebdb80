"""Pages of papers beside a report, self-contained, from the finished tables of their studies."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from kdx.config.layout import config_file, options
from kdx.config.past import LOADER
from kdx.tables.claims.index import HEADER, entry
from kdx.tables.claims.judge import Judged
from kdx.tables.claims.pages import NO_RULE, Page, Paper, Section, page_of, totals

LIST = re.compile(r"^_target_: \S+\.Papers$", re.M)  # of a study that lists papers


def papers() -> tuple[dict[str, Paper], dict[str, dict[str, Any]]]:
    """All listed papers, and the contents of the files of their studies."""
    texts = {name: config_file("study", name).read_text() for name in options("study")}
    lists = [yaml.load(text, LOADER)["papers"] for text in texts.values() if LIST.search(text)]
    found = {key: Paper(**paper) for of in lists for key, paper in of.items()}
    return found, {name: yaml.load(texts[name], LOADER) for paper in found.values() for name in paper.studies}


def write_papers(places: Sequence[Path], folder: Path) -> dict[str, str]:
    """Write `papers/NAME.html` for each paper that has a finished table.

    Args:
        places: Folders of outputs; of a table in several of them, the first counts.
        folder: Folder of the report.

    Returns:
        Title of each written page, by its path in the folder.
    """
    listed, studies = papers()
    written: dict[str, str] = {}
    for key, paper in listed.items():
        pages = [page_of(paper, studies, place) for place in places]
        if not any(page.sections for page in pages):
            continue
        path = folder / "papers" / f"{key}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html(merged(pages)), encoding="utf-8")
        written[f"papers/{key}.html"] = paper.title
    return written


def merged(pages: Sequence[Page]) -> Page:
    """One page from those of several folders: of each table the first, and the studies that none of them has."""
    sections: dict[str, Section] = {}
    for page in pages:
        for section in page.sections:
            sections.setdefault(section.command, section)
    done = {section.study for section in sections.values()}
    waiting: Mapping[str, str] = {n: title for page in pages for n, title in page.waiting.items() if n not in done}
    return Page(pages[0].paper, list(sections.values()), waiting)


def html(page: Page) -> str:
    """A page as HTML with its figures inside; it loads nothing from the network."""
    paper = page.paper
    body = [
        f"<header><h1>{escape(paper.title)}</h1><p class='lead'>{escape(paper.source)}</p></header><main>",
        f"<p><b>The claim.</b> {escape(paper.claim)}</p><p><b>Here.</b> {escape(totals(page))}.</p>",
        *(line for section in page.sections for line in _section(section)),
    ]
    if page.waiting:
        rows = [f"<li><code>kdx study study={escape(n)}</code>: {escape(t)}</li>" for n, t in page.waiting.items()]
        body += ["<section><h2>Not run</h2><ul>", *rows, "</ul></section>"]
    style = (files(__package__ or "kdx.report") / "style.css").read_text() + ".claims td { white-space: normal; }"
    head = f"<meta charset='utf-8'><title>{escape(paper.title)}</title><style>{style}</style>"
    return "\n".join([f"<!doctype html><html lang='en'><head>{head}</head><body>", *body, "</main></body></html>", ""])


def _section(section: Section) -> Iterator[str]:
    yield f"<section><h2>{escape(section.title)}</h2>"
    yield f"<p class='note'><code>{escape(section.command)}</code>. {escape(section.ran)}</p>"
    for picture in section.pictures:
        data = b64encode(picture.read_bytes()).decode()
        yield f"<p><img style='max-width:100%' alt='{escape(section.title)}' src='data:image/png;base64,{data}'></p>"
    yield _claims(section.judged) if section.judged else f"<p class='note'>{NO_RULE}</p>"
    yield "</section>"


def _claims(judged: Sequence[Judged]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADER)
    rows = "".join(f"<tr>{''.join(map(_cell, entry(each)))}</tr>" for each in judged)
    return (
        f"<div class='scroll'><table class='claims'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    bold = text.startswith("**") and text.endswith("**")
    return f"<td><b>{escape(text[2:-2])}</b></td>" if bold else f"<td>{escape(text)}</td>"
