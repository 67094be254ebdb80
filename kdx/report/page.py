"""Assembly of the self-contained HTML page."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

SCRIPTS = ("base.js", "table.js", "plot.js", "figures.js", "difference.js", "main.js")


def page(payload: dict[str, Any], papers: Mapping[str, str] | None = None) -> str:
    """Render the page with its data, style and scripts inline; it loads nothing from the network.

    Args:
        payload: The data.
        papers: Titles of the pages of papers by their paths, to link to; None for none.
    """
    here = files(__package__ or "kdx.report")
    # a "<" could end the script element that contains the data
    data = json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "title": _escape(payload["title"]),
        "papers": _links(papers or {}),
        "style": (here / "style.css").read_text(),
        "script": "\n".join((here / name).read_text() for name in SCRIPTS),
        "data": data,
    }
    text = (here / "page.html").read_text()
    pieces = text.split("{{")
    # filled in one pass, so that braces inside the data are not taken for placeholders
    return pieces[0] + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:]))


def _links(papers: Mapping[str, str]) -> str:
    """A line of links."""
    links = ", ".join(f'<a href="{path}">{_escape(title)}</a>' for path, title in papers.items())
    return f'<p class="note">Papers: {links}</p>' if links else ""


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
