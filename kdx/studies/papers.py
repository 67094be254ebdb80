"""A study of studies: those that repeat the findings of papers, one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml

from kdx.config.compose import ConfigError, compose
from kdx.config.layout import config_file
from kdx.config.layout import options as known
from kdx.config.validate import check
from kdx.core.errors import UserError, did_you_mean, reason
from kdx.core.files import below
from kdx.runs.build import make
from kdx.studies.options import Options, select
from kdx.studies.study import Counted, Study, check_study
from kdx.tables.claims.pages import Paper, markdown, page_of, totals
from kdx.tables.footnotes import align

WRONG = (UserError, ValueError, OSError)  # what a study may raise; it stops no other study


@dataclass(frozen=True)
class Step:
    """A study on the list.

    Attributes:
        paper, name: Of the paper and of the study.
        study: The study; None if its config is wrong.
        options: Its options.
        done, runs: Number of its finished runs and of all its runs; None if it cannot count them.
        hours: Of one core, for what is missing.
        problem: Why it has no config; empty if it has one.
    """

    paper: str
    name: str
    study: Study | None
    options: Options
    done: int | None
    runs: int | None
    hours: float
    problem: str


@dataclass(frozen=True, kw_only=True)
class Papers:
    """Runs the studies of papers and writes a page for each paper.

    A study that fails stops no other. The same command continues where it stopped, since each study trains only what
    is missing.

    Attributes:
        name: Directory of the pages.
        title: Heading.
        papers: Papers by a short name; `rows=[NAME]` selects some of them.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"scale", "rows"})

    name: str
    title: str
    papers: Mapping[str, Paper]

    def __post_init__(self):
        papers = {k: p if isinstance(p, Paper) else Paper(**p) for k, p in self.papers.items()}
        object.__setattr__(self, "papers", papers)
        studies = known("study")
        for key, paper in papers.items():
            if gone := [name for name in paper.studies if name not in studies]:
                hint = did_you_mean(gone[0], studies)
                raise UserError(f"study.papers.{key}.studies: there is no study '{gone[0]}'{hint}")

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Say the hours, run what is missing, and write `PAPER.md` for each paper.

        Args:
            paths: The config's paths.
            options: Options of the command line; the studies have them, too.

        Returns:
            A line for each failure.
        """
        steps = self.plan(paths, options)
        print("\n".join([*_told(steps), ""]), flush=True)
        lines = []
        for step in steps:
            if step.study is None:
                lines.append(f"{step.name}: {step.problem}")
                continue
            print(f"{step.paper}: {step.name}", flush=True)
            try:
                found = step.study.execute(paths, step.options)
            except WRONG as error:
                found = [reason(error) if isinstance(error, OSError) else str(error).splitlines()[0]]
            lines += [f"{step.name}: {line}" for line in found]
        self._write(paths, list(dict.fromkeys(step.paper for step in steps)))
        return lines

    def plan(self, paths: Mapping[str, str], options: Options) -> list[Step]:
        """The studies of a scale in their order, with the hours that they need.

        Raises:
            UserError: No scale is named, or no study has it.
        """
        scales = list(dict.fromkeys(s for p in self.papers.values() for of in p.studies.values() for s in of))
        if options.scale is None or options.scale not in scales:
            given = "null" if options.scale is None else options.scale
            raise UserError(f"scale={given}: this study has {', '.join(scales)}")
        return [
            _step(key, name, hours[options.scale], paths, replace(options, rows=None))
            for key in select(options.rows, list(self.papers), "rows")
            for name, hours in self.papers[key].studies.items()
            if options.scale in hours
        ]

    def _write(self, paths: Mapping[str, str], chosen: Sequence[str]) -> None:
        """Write and name the pages of some papers."""
        nodes = {
            name: yaml.safe_load(config_file("study", name).read_text())
            for key in chosen
            for name in self.papers[key].studies
        }
        folder = below(Path(paths["outputs"]) / "studies", self.name, "study.name")
        folder.mkdir(parents=True, exist_ok=True)
        for key in chosen:
            page = page_of(self.papers[key], nodes, Path(paths["outputs"]))
            (folder / f"{key}.md").write_text(markdown(page, folder))
            print(f"{folder}/{key}.md: {totals(page)}")


def _step(paper: str, name: str, hours: float, paths: Mapping[str, str], options: Options) -> Step:
    try:
        study = _study(name)
        # a paper's table always has a scale; another study without this preset has one size
        scales: Mapping[str, Any] = getattr(study, "scales", {})
        if options.scale not in scales and "columns" not in study.accepts:
            options = replace(options, scale=None)
        check_study(study, options)
        if not isinstance(study, Counted):
            return Step(paper, name, study, options, None, None, hours, "")
        done, runs = study.finished(paths, options)
    except WRONG as error:
        return Step(paper, name, None, options, None, None, 0.0, str(error).splitlines()[0])
    return Step(paper, name, study, options, done, runs, hours * (1 - done / runs), "")


def _study(name: str) -> Study:
    """A study by its name, as `kdx study study=NAME` has it."""
    node = compose([f"study={name}"], "study").config["study"]
    if problems := check(node, "study"):
        raise ConfigError(problems)
    return make(node)


def _told(steps: Sequence[Step]) -> list[str]:
    """The plan in lines for a terminal."""
    rows = [["paper", "study", "finished runs", "hours left"]]
    for step in steps:
        count = "-" if step.runs is None else f"{step.done} of {step.runs}"
        rows.append([step.paper, step.name, count, step.problem or f"{step.hours:.2f}"])
    total = sum(step.hours for step in steps)
    head = f"{len(steps)} studies; what is missing takes about {total:.1f} hours of one core, one study after the other"
    return [head, *align(rows)]
