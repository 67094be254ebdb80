"""Output of a study's table, on disk and in the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdx.core.files import below
from kdx.core.metric import Metric
from kdx.runs.results import Protocol
from kdx.tables.claims.claim import Claim
from kdx.tables.claims.judge import judge
from kdx.tables.claims.write import section
from kdx.tables.manifest import SUFFIX, Made, manifest_of
from kdx.tables.metrics import Shown
from kdx.tables.picture import draw
from kdx.tables.statistics import grain_of
from kdx.tables.table import TEACHER, Table


@dataclass(frozen=True)
class Source:
    """The runs that a study's table comes from.

    Attributes:
        kind: Class of the study.
        protocol: The epoch of their numbers.
        made: The runs.
    """

    kind: str
    protocol: Protocol
    made: Sequence[Made]


def publish(
    table: Table,
    paths: Mapping[str, str],
    name: str,
    source: Source,
    more: Sequence[str] = (),
    claims: Mapping[str, Claim] | None = None,
) -> None:
    """Write `table.md`, `table.csv`, `table.png` and `table.manifest.json` of a study, and print the table.

    Args:
        table: The table.
        paths: The config's paths.
        name: Name of the study's files.
        source: The runs behind the table.
        more: Lines of Markdown after the table.
        claims: Claims about the table, whose verdicts follow it; None for none.
    """
    more = [*section(judge(claims or {}, table.values, fractions=True)), *more]
    folder = below(Path(paths["outputs"]) / "studies", name, "study.name")
    folder.mkdir(parents=True, exist_ok=True)
    files = {"md": "\n".join([table.markdown(), *more, ""]) if more else table.markdown(), "csv": table.csv()}
    for suffix, text in files.items():
        (folder / f"table.{suffix}").write_text(text)
    draw(table, folder / "table.png", first=TEACHER if TEACHER in table.cells else None)
    if source.made:
        write_manifest(folder, "table", paths, name, source, table.columns, files)
    print("\n".join([table.text(), "", *more]) if more else table.text())
    print(f"\n{folder}/table.md, table.csv, table.png, table.{SUFFIX}")


def write_manifest(
    folder: Path,
    stem: str,
    paths: Mapping[str, str],
    name: str,
    source: Source,
    columns: Sequence[str],
    files: Mapping[str, str],
) -> None:
    """Write the manifest beside a table's files.

    Args:
        folder, stem: Where, and the name before the suffixes.
        paths: The config's paths.
        name: Name of the study.
        source: The runs behind the table.
        columns: Names of the table's columns; those that are metrics of the runs are recorded.
        files: Content of the table's files, by suffix.
    """
    runs = [made.result for made in source.made]
    metric = deciding(columns, source)
    form = Shown(runs)[metric]
    values = [v for run in runs if (v := run.metric(metric, source.protocol)) is not None]
    tested = {int(run.data["examples"]["test"]) for run in runs}
    manifest = manifest_of(
        study=name,
        kind=source.kind,
        protocol=source.protocol,
        columns=columns,
        metric=metric,
        scale=form.scale,
        grain=grain_of(values, tested.pop() if len(tested) == 1 else None, _digit(form)),
        made=source.made,
        paths=paths,
        files=files,
    )
    (folder / f"{stem}.{SUFFIX}").write_text(manifest.text())


def deciding(columns: Sequence[str], source: Source) -> str:
    """The first column that all runs measured, or else their primary metric on test."""
    runs = [made.result for made in source.made]
    measured = (c for c in columns if all(run.metric(c, source.protocol) is not None for run in runs))
    return next(measured, Shown(runs).main)


def _digit(form: Metric) -> float:
    """One unit of the last digit shown."""
    return 10.0**-form.digits / form.scale
