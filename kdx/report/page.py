"""One self-contained HTML page around the numbers."""

import json
from importlib.resources import files
from typing import Any

SCRIPTS = ("base.js", "table.js", "plot.js", "figures.js", "difference.js", "main.js")


def page(payload: dict[str, Any]) -> str:
    """The page, with its data, style and scripts inside; it asks the network for nothing."""
    here = files(__package__ or "kdx.report")
    # a "<" could end the script element that the data stand in
    data = json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "title": _escape(payload["title"]),
        "style": (here / "style.css").read_text(),
        "script": "\n".join((here / name).read_text() for name in SCRIPTS),
        "data": data,
    }
    text = (here / "page.html").read_text()
    pieces = text.split("{{")
    # filled in one pass, so that nothing inside the data is taken for a place to fill
    return pieces[0] + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:]))


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
