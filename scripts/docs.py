"""Write the sources of the documentation site to build/docs: `make docs` builds build/site from them.

Every README and the other Markdown files keep their place, so that their links work as in the repository. Each
package gets a page of its modules' docstrings under api/.
"""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "docs"
KEPT = ("kdx", "configs", "tests")  # folders whose READMEs are pages
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def copy(path: Path) -> None:
    """Copy a file of the repository to its place in the site's sources."""
    to = OUT / path.relative_to(ROOT)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def packages() -> list[Path]:
    """The folders of kdx that hold modules, the package itself first."""
    return sorted(path.parent for path in (ROOT / "kdx").rglob("__init__.py"))


def page(folder: Path) -> str:
    """A page of docstrings: the package, then each of its modules."""
    name = ".".join(folder.relative_to(ROOT).parts)
    modules = sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
    lines = [f"# {name}", ""]
    for module in modules:
        lines += [f"## {name}.{module}", "", f"::: {name}.{module}", ""]
    return "\n".join(lines)


def settings(documented: list[Path]) -> str:
    """The site's settings: those of scripts/mkdocs.yml, with the tree of pages."""
    names = [".".join(folder.relative_to(ROOT).parts) for folder in documented]
    rooms = sorted(path.parent.name for path in (ROOT / "kdx").glob("*/README.md"))
    lines = [
        "INHERIT: ../scripts/mkdocs.yml",
        "docs_dir: docs",
        "site_dir: site",
        "nav:",
        "  - kdx: README.md",
        "  - Methods: configs/method/README.md",
        "  - Your own parts: tests/plugin/README.md",
        "  - Rooms:",
        *(f"    - {room}: kdx/{room}/README.md" for room in rooms),
        "  - Contributing: CONTRIBUTING.md",
        "  - Changelog: CHANGELOG.md",
        "  - Security: github/SECURITY.md",
        "  - API:",
        *(f"    - {name}: api/{name}.md" for name in names),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    for name in (*TOP, ".github/SECURITY.md", ".github/rooms.svg", "outputs/tables/demo.png"):
        copy(ROOT / name)
    # mkdocs leaves folders out that begin with a dot
    shutil.move(OUT / ".github", OUT / "github")
    for file in OUT.glob("*.md"):
        file.write_text(file.read_text().replace("](.github/", "](github/"))
    (OUT / "LICENSE").write_text((ROOT / "LICENSE").read_text())
    for folder in KEPT:
        for path in (ROOT / folder).rglob("README.md"):
            copy(path)
    (OUT / "api").mkdir()
    documented = [folder for folder in packages() if any(p.stem != "__init__" for p in folder.glob("*.py"))]
    for folder in documented:
        (OUT / "api" / f"{'.'.join(folder.relative_to(ROOT).parts)}.md").write_text(page(folder))
    (OUT.parent / "mkdocs.yml").write_text(settings(documented))


if __name__ == "__main__":
    main()
