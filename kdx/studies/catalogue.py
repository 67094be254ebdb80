"""`kdx list`: what there is, read from the YAML files themselves."""

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from kdx.config.layout import config_dir, options
from kdx.core.errors import did_you_mean

FIELDS: tuple[str, ...] = ("acronym", "paper", "year", "link", "needs", "source")
KINDS = {
    "methods": "method",
    "models": "model",
    "datasets": "dataset",
    "augmentations": "augmentation",
    "experiments": "experiment",
    "recipes": "recipe",
    "studies": "study",
}


def main(arguments: Sequence[str]) -> None:
    """Print a kind of thing. Exits with 2 where there is no such kind."""
    if len(arguments) == 1 and arguments[0] not in KINDS:
        print(f"kdx: unknown kind '{arguments[0]}'{did_you_mean(arguments[0], KINDS)}", file=sys.stderr)
        sys.exit(2)
    if len(arguments) != 1:
        print(f"kdx: say which kind: kdx list {'|'.join(KINDS)}", file=sys.stderr)
        sys.exit(2)
    group = KINDS[arguments[0]]
    if group == "method":
        print(_columns(methods()))
    else:
        print(_columns([[name, headline(config_dir() / group / f"{name}.yaml")] for name in options(group)]))


def methods() -> list[list[str]]:
    """A header and a row for each method: option, acronym, year, what it reads, weights, paper."""
    rows = [["method", "acronym", "year", "needs", "paper"]]
    for name in options("method"):
        facts = front_matter(config_dir() / "method" / f"{name}.yaml")
        rows.append([name, facts["acronym"], facts["year"], facts["needs"], facts["paper"]])
    return rows


def methods_markdown() -> str:
    """The same as a Markdown table, with links to the papers."""
    lines = ["| `method=` | acronym | year | reads | paper |", "|---|---|---|---|---|"]
    for name in options("method"):
        facts = front_matter(config_dir() / "method" / f"{name}.yaml")
        paper = f"[{facts['paper']}]({facts['link']})" if facts["link"].startswith("http") else facts["paper"]
        lines.append(f"| `{name}` | {facts['acronym']} | {facts['year']} | {facts['needs']} | {paper} |")
    return "\n".join(lines)


def front_matter(path: Path) -> dict[str, str]:
    """The facts in the comments that open a method's file; empty where one is missing."""
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
