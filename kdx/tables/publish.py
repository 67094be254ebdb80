"""Output of a study's table, on disk and in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kdx.core.files import below
from kdx.tables.claims.claim import Claim
from kdx.tables.claims.judge import judge
from kdx.tables.claims.write import section
from kdx.tables.picture import draw
from kdx.tables.table import TEACHER, Table


def publish(
    table: Table,
    paths: Mapping[str, str],
    name: str,
    more: Sequence[str] = (),
    claims: Mapping[str, Claim] | None = None,
) -> None:
    """Write `table.md`, `table.csv` and `table.png` of a study, and print the table.

    Args:
        table: The table.
        paths: The config's paths.
        name: Name of the study's files.
        more: Lines of Markdown after the table.
        claims: Claims about the table, whose verdicts follow it; None for none.
    """
    more = [*section(judge(claims or {}, table.values, fractions=True)), *more]
    folder = below(Path(paths["outputs"]) / "studies", name, "study.name")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text("\n".join([table.markdown(), *more, ""]) if more else table.markdown())
    (folder / "table.csv").write_text(table.csv())
    draw(table, folder / "table.png", first=TEACHER if TEACHER in table.cells else None)
    print("\n".join([table.text(), "", *more]) if more else table.text())
    print(f"\n{folder}/table.md, table.csv, table.png")
