"""Bring the generated parts of the README up to date: the table of methods, and the demo's output.

python scripts/readme.py            # methods from configs/method, the demo from outputs/tables/demo.txt
"""

from pathlib import Path

from kdx.commands.catalogue import methods_markdown

README = Path(__file__).resolve().parent.parent / "README.md"
DEMO = README.parent / "outputs" / "tables" / "demo.txt"


def with_part(text: str, name: str, part: str) -> str:
    """The text with what stands between `<!-- name -->` and `<!-- /name -->` replaced."""
    opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = text.split(opening)
    return f"{before}{opening}{part}\n{rest[rest.index(closing) :]}"


def generated(text: str) -> str:
    """The README with its generated parts as they should be now."""
    demo = "\n".join(f"    {line}".rstrip() for line in DEMO.read_text().splitlines())
    return with_part(with_part(text, "demo", demo), "methods", methods_markdown())


if __name__ == "__main__":
    README.write_text(generated(README.read_text()))
