"""`kdx list`: the options of each group, read from the YAML files themselves."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from kdx.config.layout import config_file, is_group, options
from kdx.core.errors import did_you_mean
from kdx.core.notice import stop

FIELDS: tuple[str, ...] = ("acronym", "paper", "year", "link", "needs", "source")
# folder in configs/ by kind
KINDS = {
    "methods": "method",
    "models": "model",
    "datasets": "dataset",
    "augmentations": "augmentation",
    "experiments": "experiment",
    "recipes": "recipe",
    "studies": "study",
    "seeds": "seeds",
    "sweeps": "sweep",
    "evals": "evals",
    "transfers": "transfer",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "updates": "update",
    "trainers": "trainer",
    "loggers": "logger",
    "debug": "debug",
    "launchers": "hydra/launcher",
    "sweepers": "hydra/sweeper",
}


def main(arguments: Sequence[str]) -> None:
    """Print the options of a kind, or of a group by its folder's name. Exits with 2 for any other word."""
    groups = KINDS | {group: group for group in (*KINDS.values(), *arguments) if is_group(group)}
    if len(arguments) == 1 and arguments[0] not in groups:
        stop(2, [f"unknown kind '{arguments[0]}'{did_you_mean(arguments[0], KINDS)}"])
    if len(arguments) != 1:
        stop(2, [f"name a kind: kdx list {'|'.join(KINDS)}"])
    group = groups[arguments[0]]
    if group == "method":
        print(_columns(methods()))
    else:
        print(_columns([[name, headline(config_file(group, name))] for name in options(group)]))


def methods() -> list[list[str]]:
    """A header and a row for each method: option, acronym, year, inputs that it needs, defaults, paper."""
    rows = [["method", "acronym", "year", "needs", "defaults", "paper"]]
    for name in options("method"):
        path = config_file("method", name)
        facts = front_matter(path)
        rows.append([name, facts["acronym"], facts["year"], facts["needs"], defaults(path), facts["paper"]])
    return rows


def defaults(path: Path) -> str:
    """Temperature and weights of a method's file, such as "T 4, ce 0.1, kd 0.9"; a schedule by its name."""
    config = yaml.safe_load(path.read_text())
    given = {"T": config.get("temperature")} | (config.get("weights") or {})
    shown = {k: v["_target_"].rsplit(".", 1)[-1] if isinstance(v, dict) else f"{v:g}" for k, v in given.items() if v}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def methods_markdown() -> str:
    """A Markdown table of the papers, with links, and the methods of each."""
    of: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for name in options("method"):
        facts = front_matter(config_file("method", name))
        of.setdefault(facts["link"], []).append((name, facts))
    lines = ["| `method=` | acronym | year | reads | paper |", "|---|---|---|---|---|"]
    for link, methods in of.items():
        names = " ".join(f"`{name}`" for name, _ in methods)
        acronyms = ", ".join(dict.fromkeys(facts["acronym"] for _, facts in methods))
        needs = ", ".join(dict.fromkeys(word for _, facts in methods for word in facts["needs"].split(", ")))
        year, title = methods[0][1]["year"], min((facts["paper"] for _, facts in methods), key=len)
        lines.append(f"| {names} | {acronyms} | {year} | {needs} | [{title}]({link}) |")
    return "\n".join(lines)


def front_matter(path: Path) -> dict[str, str]:
    """The facts in the comments at the top of a method's file; an empty text for a missing one."""
    facts: dict[str, str] = dict.fromkeys(FIELDS, "")
    for line in path.read_text().splitlines():
        found = re.fullmatch(r"# (\w+): (.*)", line)
        if found and found[1] in facts:
            facts[found[1]] = found[2]
        elif not line.startswith("#"):
            break
    return facts


def headline(path: Path) -> str:
    """First sentence of the comment that opens a file, after its citation; else what its `_target_` builds."""
    lines = path.read_text().splitlines()
    opening = itertools.takewhile(lambda line: line.startswith("#"), lines)
    comment = [line.lstrip("# ") for line in opening if not line.startswith("# @package")]
    # a line that ends in a link ends a sentence; "et al." does not
    text = " ".join(f"{line}." if re.search(r"https?://\S+[^.]$", line) else line for line in comment)
    sentences = re.split(r"(?<!et al\.)(?<=[.])\s", text)
    if comment:
        return next((s for s in sentences if "://" not in s), sentences[0]).rstrip(":.")
    settings = [line.split("#", 1)[0].strip() for line in lines if ":" in line]
    target = next((s.rsplit(".", 1)[-1] for s in settings if s.startswith("_target_")), "")
    numbers = [s for s in settings if not s.startswith("_target_") and "${" not in s]
    return f"{target}({', '.join(numbers)})"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
