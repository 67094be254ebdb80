"""The README's generated part says what the configs say."""

from pathlib import Path

from kdx.commands.catalogue import methods_markdown
from kdx.config.compose import options

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_table_of_methods_is_that_of_the_configs():
    table = methods_markdown()
    assert f"<!-- methods -->\n{table}\n<!-- /methods -->" in README.read_text(), "run python scripts/readme.py"
    assert all(f"`{name}`" in table for name in options("method"))


def test_it_stays_short():
    assert len(README.read_text().splitlines()) < 200
