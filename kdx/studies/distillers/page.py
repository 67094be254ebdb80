"""The page of a search study: its figures and histories in one self-contained HTML file."""

import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from kdx.core.files import atomic_write
from kdx.studies.distillers.figures import draw_curves, draw_pipeline, draw_survival
from kdx.studies.distillers.history import History

if TYPE_CHECKING:
    from kdx.studies.distillers.findings import Findings

STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100%; display: block; margin: 1rem 0 } pre { overflow-x: auto; font-size: 13px }
table { border-collapse: collapse; font-size: 13px } td, th { padding: 2px 8px; text-align: left }
tr:nth-child(even) { background: #f5f7fa } details { margin: 1rem 0 }
"""


def write_page(findings: "Findings", folder: Path) -> Path:
    """Write `search.html` and its figures `curves.png`, `survival.png` and `pipeline.png` into a study's folder."""
    study = findings.study
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"<h1>{escape(study.title)}</h1>"]
    draw_curves(findings, folder / "curves.png")
    parts.append(_image(folder / "curves.png", "best fitness so far, and fitness against the final metric"))
    of = findings.histories.get(study.main, {})
    found = {seed: best for seed, history in of.items() if (best := history.best()) is not None}
    if found:
        seed = min(found, key=lambda s: (found[s].fitness or 0.0, s))
        best, who = found[seed], f"{study.main}, seed {seed}"
        draw_pipeline(study.space, best, f"best of {who}: fitness {best.fitness:.4f}", folder / "pipeline.png")
        title = f"options in {study.main}, {len(of)} searches"
        draw_survival(study.space, list(of.values()), title, folder / "survival.png")
        parts.append(_image(folder / "pipeline.png", str(best.genotype)))
        parts.append(_image(folder / "survival.png", "share of each option over the search"))
    table = folder / "table.md"
    if table.exists():
        parts.append(f"<pre>{escape(table.read_text())}</pre>")
    parts += [_history(f"{name}, seed {seed}", h) for name, by in findings.histories.items() for seed, h in by.items()]
    page = folder / "search.html"
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(study.title)}</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>\n"
    )
    with atomic_write(page) as file:
        file.write(text.encode())
    print(f"{page}")
    return page


def _image(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'


def _history(name: str, history: History) -> str:
    rows = [
        f"<tr><td>{t.number}</td><td>{t.origin}</td><td>{escape(', '.join(map(str, t.parents)))}</td>"
        f"<td>{escape(str(t.genotype))}</td><td>{'' if t.fitness is None else f'{t.fitness:.4f}'}</td>"
        f"<td>{escape(f'{t.state}: {t.reason}' if t.reason else t.state)}</td></tr>"
        for t in history.trials
    ]
    head = "<tr><th>trial</th><th>origin</th><th>parents</th><th>distiller</th><th>fitness</th><th>state</th></tr>"
    return f"<details><summary>history of {escape(name)}</summary><table>{head}{''.join(rows)}</table></details>"
