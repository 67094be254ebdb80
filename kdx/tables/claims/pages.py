"""A page for each paper: its claim, what ran, the figure, and the verdicts beside what the paper prints."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdx.core.errors import UserError
from kdx.tables.claims.index import HEADER, cell, entry, values_of
from kdx.tables.claims.judge import Judged, judge
from kdx.tables.claims.read import read
from kdx.tables.footnotes import pipes
from kdx.tables.manifest import SUFFIX, Manifest, read_manifest

REHEARSAL = "smoke"  # a scale whose numbers say nothing
NO_RULE = "No rule for a verdict was written before these runs, so there is none."


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper whose findings studies repeat.

    Attributes:
        title: Of the paper.
        source: Authors, venue and link.
        claim: Its claim in one sentence.
        studies: Hours of one core by scale, for each study by name.
    """

    title: str
    source: str
    claim: str
    studies: Mapping[str, Mapping[str, float]]

    def __post_init__(self):
        if not self.studies:
            raise UserError(f"the paper '{self.title}' needs at least one study")


@dataclass(frozen=True)
class Section:
    """A finished table of a study.

    Attributes:
        study, title: Of the study.
        command: Runs it again.
        ran: What ran, in one sentence.
        table: Its Markdown.
        pictures: Its figures.
        judged: Its claims with their verdicts.
    """

    study: str
    title: str
    command: str
    ran: str
    table: Path
    pictures: Sequence[Path]
    judged: Sequence[Judged]


@dataclass(frozen=True)
class Page:
    """The page of a paper.

    Attributes:
        paper: The paper.
        sections: Its finished tables.
        waiting: Studies without one, with their title.
    """

    paper: Paper
    sections: Sequence[Section]
    waiting: Mapping[str, str]


def page_of(paper: Paper, studies: Mapping[str, Mapping[str, Any]], folder: Path) -> Page:
    """The page of a paper from its finished tables.

    Args:
        paper: The paper.
        studies: Contents of the studies' files, by name.
        folder: A folder of outputs, as `paths.outputs`; or a folder of tables alone, as `outputs/tables`.
    """
    sections: list[Section] = []
    waiting: dict[str, str] = {}
    for name in paper.studies:
        found = [_section(name, studies[name], scale, path) for scale, path in _tables(name, studies[name], folder)]
        sections += found
        if not found:
            waiting[name] = studies[name]["title"]
    return Page(paper, sections, waiting)


def _tables(name: str, node: Mapping[str, Any], folder: Path) -> Iterator[tuple[str | None, Path]]:
    """Scale, if any, and CSV file of each finished table of a study."""
    if node["_target_"].endswith(".PaperTable"):
        places = [
            (scale, [folder / "tables" / name / f"{scale}.csv", folder / name / f"{scale}.csv"])
            for scale in node["scales"]
            if scale != REHEARSAL
        ]
    else:
        whole = [folder / "studies" / name / "table.csv", folder / "tables" / f"{name}.csv", folder / f"{name}.csv"]
        places = [(None, whole)]
    for scale, paths in places:
        if path := next((path for path in paths if path.is_file()), None):
            yield scale, path


def _section(name: str, node: Mapping[str, Any], scale: str | None, path: Path) -> Section:
    claims = read(node["claims"]) if "claims" in node else {}
    manifest = path.with_suffix(f".{SUFFIX}")
    # a measurement may draw a picture of its own; committed, it has the study's name
    pictures = [path.with_suffix(".png"), path.with_name(f"{path.stem}_picture.png")]
    pictures += [path.with_name("picture.png")] if path.stem == "table" else []
    return Section(
        study=name,
        title=node["title"],
        command=f"kdx study study={name}" + (f" scale={scale}" if scale else ""),
        ran=_ran(read_manifest(manifest)) if manifest.is_file() else "These runs have no manifest.",
        table=path.with_suffix(".md"),
        pictures=[picture for picture in pictures if picture.is_file()],
        judged=judge(claims, *values_of(path)) if claims else [],
    )


def _ran(manifest: Manifest) -> str:
    """Number of runs, their seeds, code and hardware."""
    runs = {run.identity for run in manifest.runs}
    seeds = sorted({run.seed for run in manifest.runs})
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 8 else f"{len(seeds)} of them"
    commits = sorted({str(origin["commit"])[:10] for origin in manifest.origins})
    devices = sorted({str(origin["device"]) for origin in manifest.origins})
    return f"{len(runs)} runs; seeds: {shown}; commit {', '.join(commits)}; {', '.join(devices)}."


def totals(page: Page) -> str:
    """ "3 shown, 1 not shown; without a table: kdvr/mnist"."""
    verdicts = [judged.verdict for section in page.sections for judged in section.judged]
    counts = {verdict: verdicts.count(verdict) for verdict in ("shown", "not shown", "opposite", "no verdict")}
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n) or "no verdicts"
    return f"{told}; without a table: {', '.join(page.waiting)}" if page.waiting else told


def markdown(page: Page, folder: Path) -> str:
    """A page as Markdown, with links from the folder that it will lie in."""
    paper = page.paper

    def link(path: Path) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    lines = [
        f"# {paper.title}",
        "",
        paper.source,
        "",
        f"**The claim.** {paper.claim}",
        "",
        f"**Here.** {totals(page)}.",
    ]
    for section in page.sections:
        lines += [
            "",
            f"## {section.title}",
            "",
            f"`{section.command}`. {section.ran} [All numbers]({link(section.table)}).",
        ]
        for picture in section.pictures:
            lines += ["", f"![{section.title}]({link(picture)})"]
        lines += ["", *(_claims(section.judged) if section.judged else [NO_RULE])]
    if page.waiting:
        lines += [
            "",
            "## Not run",
            "",
            *(f"- `kdx study study={name}`: {title}" for name, title in page.waiting.items()),
        ]
    return "\n".join([*lines, ""])


def _claims(judged: Sequence[Judged]) -> list[str]:
    rows = [pipes([cell(part) for part in entry(each)]) for each in judged]
    return [pipes(HEADER), "|:--|:--|--:|--:|:--|", *rows]
