"""Regenerate the generated parts of the documentation; a test fails while one of them is out of date.

    python scripts/readme.py            # from configs/, pyproject.toml and outputs/tables/demo.txt
    python scripts/readme.py --demo     # after running the demo, whose table and picture it copies to outputs/tables/

Generated are the table of methods in configs/method/README.md, the rows of configs/study/zoo/digits.yaml, the demo's
table in README.md, the line of imports in each room's README.md, the picture of the rooms in .github/rooms.svg, and the
index of claims with their verdicts in outputs/tables/README.md, with a page for each paper in outputs/tables/papers.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from kdx.commands.catalogue import front_matter, methods_markdown
from kdx.config.layout import config_dir, config_file, options
from kdx.report.papers import papers
from kdx.tables.claims.index import index
from kdx.tables.claims.pages import markdown, page_of

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "outputs" / "tables"
OVER_ONE_TEACHER = (
    r"distill\.Distill",
    r"simkd\.SimKD",
    r"two_views\.TwoViews",
    r"input_gradients\.InputGradients",
)
DEMO = ROOT / "outputs" / "studies" / "demo"


def with_part(text: str, name: str, part: str) -> str:
    """Replace the text between `<!-- name -->` and `<!-- /name -->`."""
    opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = text.split(opening)
    return f"{before}{opening}{part}\n{rest[rest.index(closing) :]}"


def contracts() -> list[dict]:
    """The contracts of import-linter in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def floors() -> list[list[str]]:
    """The rooms and modules of kdx from the top floor to the bottom; those of one floor do not import each other."""
    (layers,) = (contract["layers"] for contract in contracts() if contract["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def rooms() -> list[str]:
    """The packages of kdx."""
    return [name for floor in floors() for name in floor if (ROOT / "kdx" / name).is_dir()]


def may_import(room: str) -> str:
    """A sentence that says which rooms a room may import."""
    order = floors()
    at = next(i for i, floor in enumerate(order) if room in floor)
    below = [f"`{name}`" for floor in order[at + 1 :] for name in floor]
    barred = {
        name
        for contract in contracts()
        if contract["type"] == "forbidden" and f"kdx.{room}" in contract["source_modules"]
        for name in contract["forbidden_modules"]
    }
    names = {"hydra": "Hydra", "omegaconf": "OmegaConf", "torch": "torch"}
    never = [names[name] for name in sorted(barred) if name in names]
    inside = f"Imports from kdx: {', '.join(below)}." if below else "Imports nothing from kdx."
    return inside + (f" Never imports {' or '.join(never)}." if never else "")


def picture() -> str:
    """The floors as an SVG: each may import from those below it."""
    order, width, row, gap = floors(), 640, 34, 8
    height = len(order) * (row + gap) + gap + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="14" text-anchor="middle">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, floor in enumerate(order):
        y, part = gap + i * (row + gap), (width - gap) / len(floor)
        for j, name in enumerate(floor):
            x = gap + j * part
            lines.append(
                f'<rect x="{x:.0f}" y="{y}" width="{part - gap:.0f}" height="{row}" rx="4" fill="#d9e2ec"/>'
                f'<text x="{x + (part - gap) / 2:.0f}" y="{y + 22}" fill="#1f2933">{name}</text>'
            )
    note = "A module imports from lower floors only; rooms on one floor do not import each other."
    lines.append(f'<text x="{width / 2:.0f}" y="{height - 10}" font-size="12" fill="#52606d">{note}</text>')
    return "\n".join([*lines, "</svg>", ""])


def zoo(text: str) -> str:
    """The study of all losses with one teacher, with a row added for each method that has none."""
    _, _, rows = text.partition("rows:\n")
    rows, rest = rows[: rows.index("baseline:")], rows[rows.index("baseline:") :]
    lines = rows.splitlines()
    for name in options("method"):
        if one_teacher_loss(config_file("method", name)) and not re.search(rf"\bmethod={name}[],]", rows):
            row = f"  {front_matter(config_file('method', name))['acronym']}: [method={name}]"
            later = (i for i, line in enumerate(lines) if i > 1 and line.lower() > row.lower())  # after the references
            lines.insert(next(later, len(lines)), row)
    return text.partition("rows:\n")[0] + "rows:\n" + "\n".join(lines) + "\n" + rest


def one_teacher_loss(path: Path) -> bool:
    """Whether a method's file is a loss over a frozen teacher that the zoo's pair can be trained with."""
    text = path.read_text()
    # with one teacher, losses of ensembles are all KD; Tf-KD self is KD from the student's own architecture; pixels and
    # texts are other data
    if "kdx.losses.logits.ensemble." in text or "over_rows" in text or path.stem == "tfkd_self":
        return False
    if "texts" in front_matter(path)["needs"]:
        return False
    return bool(re.search(rf"^_target_: kdx\.methods\.({'|'.join(OVER_ONE_TEACHER)})$", text, re.M))


def generated() -> Iterator[tuple[Path, str]]:
    """Each file with generated parts, and its text as it should be."""
    readme = ROOT / "README.md"
    demo = "\n".join(f"    {line}".rstrip() for line in (TABLES / "demo.txt").read_text().splitlines())
    yield readme, with_part(readme.read_text(), "demo", demo)
    methods = ROOT / "configs" / "method" / "README.md"
    yield methods, with_part(methods.read_text(), "methods", methods_markdown())
    zoos = ROOT / "configs" / "study" / "zoo" / "digits.yaml"
    yield zoos, zoo(zoos.read_text())
    for room in rooms():
        path = ROOT / "kdx" / room / "README.md"
        yield path, with_part(path.read_text(), "imports", may_import(room))
    yield ROOT / ".github" / "rooms.svg", picture()
    listed, nodes = papers()
    every = {f"papers/{name}.md": page_of(paper, nodes, TABLES) for name, paper in listed.items()}
    pages = {path: page for path, page in every.items() if page.sections}
    yield TABLES / "README.md", index(studies(), TABLES, {path: page.paper.title for path, page in pages.items()})
    for path, page in pages.items():
        yield TABLES / path, markdown(page, TABLES / "papers")


def studies() -> dict[str, dict]:
    """The contents of the files in configs/study, by the study's name."""
    return {name: yaml.safe_load((config_dir() / "study" / f"{name}.yaml").read_text()) for name in options("study")}


def run_demo() -> None:
    """Run the demo and keep its table and picture."""
    command = [sys.executable, "-m", "kdx.cli", "study", "study=demo"]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    table, _, _ = printed.rpartition("\n\n")  # the last line names the files
    (TABLES / "demo.txt").write_text(table.rstrip() + "\n")
    for suffix in ("md", "csv", "png", "manifest.json"):
        shutil.copyfile(DEMO / f"table.{suffix}", TABLES / f"demo.{suffix}")


if __name__ == "__main__":
    if "--demo" in sys.argv[1:]:
        run_demo()
    for path, text in generated():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
