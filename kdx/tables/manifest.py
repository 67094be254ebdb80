"""The manifest of a table: what trains each of its runs again, and what came out.

A manifest holds no path of a machine, see `kdx.tables.placeholders`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any

from kdx.core.errors import DamagedError, UserError, reason
from kdx.models.weights import sha256 as sha256_of
from kdx.runs.results import Protocol, Result
from kdx.tables.placeholders import RUN, is_kept, placeless

SUFFIX = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class Made:
    """A finished run of a study.

    Attributes:
        label: Its name in the study.
        row: The runs of a row repeat each other with other seeds.
        overrides: Of its config, without those of paths.
        result: Its result.
    """

    label: str
    row: str
    overrides: Sequence[str]
    result: Result


@dataclass(frozen=True)
class Recorded:
    """A run as a manifest describes it.

    Attributes:
        label, row: As in `Made`.
        overrides: With placeholders for files and other runs.
        seed: Its seed.
        identity: Hash of its config.
        student: SHA-256 of the exported weights; None if they were gone when the manifest was written.
        metrics: The measurements that the table shows.
        on: Place of code and machine in `Manifest.origins`.
    """

    label: str
    row: str
    overrides: tuple[str, ...]
    seed: int
    identity: str
    student: str | None
    metrics: Mapping[str, float]
    on: int

    @property
    def needs(self) -> tuple[str, ...]:
        """Labels of the runs that it starts from."""
        return tuple(dict.fromkeys(label for override in self.overrides for label in RUN.findall(override)))


@dataclass(frozen=True)
class Manifest:
    """The runs behind a table.

    Attributes:
        study: Name of the study.
        kind: Class of the study.
        protocol: The epoch of the measurements.
        metric: The measurement that decides whether a run repeats another.
        scale: Factor from this metric's value to the number that the table shows.
        grain: The smallest difference that counts, as a value.
        files: SHA-256 of the table's files, by suffix.
        origins: Code, versions and machine of the runs, each once.
        runs: The runs, in the order of the table.
    """

    study: str
    kind: str
    protocol: Protocol
    metric: str
    scale: float
    grain: float
    files: Mapping[str, str]
    origins: Sequence[Mapping[str, Any]]
    runs: Sequence[Recorded]

    def run(self, label: str) -> Recorded:
        return next(run for run in self.runs if run.label == label)

    def values(self, row: str) -> list[float]:
        """The deciding measurement of the runs of a row."""
        return [run.metrics[self.metric] for run in self.runs if run.row == row and self.metric in run.metrics]

    def text(self) -> str:
        """JSON with a line for each run."""
        common = _common([run.overrides for run in self.runs])
        facts = {
            "version": VERSION,
            "study": self.study,
            "kind": self.kind,
            "protocol": self.protocol,
            "metric": self.metric,
            "scale": self.scale,
            "grain": self.grain,
            "files": dict(sorted(self.files.items())),
            "overrides": list(common),
        }
        lines = [f'  "{key}": {json.dumps(value)},' for key, value in facts.items()]
        runs = [json.dumps(_plain(run, len(common))) for run in self.runs]
        for key, entries in (("origins", [json.dumps(origin) for origin in self.origins]), ("runs", runs)):
            body = ",\n".join(f"    {entry}" for entry in entries)
            lines.append(f'  "{key}": [\n{body}\n  ]' + ("," if key == "origins" else ""))
        return "\n".join(["{", *lines, "}", ""])


def _plain(run: Recorded, common: int) -> dict[str, Any]:
    return {
        "label": run.label,
        "row": run.row,
        "overrides": list(run.overrides[common:]),
        "seed": run.seed,
        "identity": run.identity,
        "student": run.student,
        "metrics": dict(run.metrics),
        "on": run.on,
    }


def _common(every: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The overrides that all lists begin with; none for a single list."""
    if len(every) < 2:
        return ()
    return tuple(first for first, *_ in takewhile(lambda of: len(set(of)) == 1, zip(*every, strict=False)))


def manifest_of(
    *,
    study: str,
    kind: str,
    protocol: Protocol,
    columns: Sequence[str],
    metric: str,
    scale: float,
    grain: float,
    made: Sequence[Made],
    paths: Mapping[str, str],
    files: Mapping[str, str | bytes],
) -> Manifest:
    """The manifest of finished runs.

    Args:
        study, kind, protocol, metric, scale, grain: As in `Manifest`.
        columns: Metrics that the table shows.
        made: The runs.
        paths: The config's paths, which overrides may interpolate.
        files: Content of the table's files, by suffix.
    """
    folders = {str(of.result.folder.absolute()): of.label for of in made}
    origins: list[Mapping[str, Any]] = []
    runs = []
    for of in made:
        data = of.result.data
        origin = origin_of(data)
        if origin not in origins:
            origins.append(origin)
        shown = {name: of.result.metric(name, protocol) for name in dict.fromkeys((metric, *columns))}
        student = sha256_of(of.result.student) if of.result.student.is_file() else None
        overrides = tuple(placeless(o, folders, paths) for o in of.overrides if is_kept(o))
        known = {name: value for name, value in shown.items() if value is not None}
        runs.append(
            Recorded(
                of.label,
                of.row,
                overrides,
                int(data["seed"]),
                data["identity"],
                student,
                known,
                origins.index(origin),
            )
        )
    written = {suffix: _hash(content) for suffix, content in files.items()}
    return Manifest(study, kind, protocol, metric, scale, grain, written, origins, runs)


def origin_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Code, versions and machine of a result."""
    device = data["device"]
    return {
        "commit": data["code"]["commit"],
        "dirty": data["code"]["dirty"],
        "kdx": data["versions"].get("kdx"),
        "torch": data["versions"]["torch"],
        "device": device["name"],
        "type": device.get("type", "cpu"),
        "threads": device["threads"],
    }


def _hash(content: str | bytes) -> str:
    return sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UserError: The file is missing, damaged, or of a later version.
    """
    try:
        data = json.loads(path.read_text())
        if data["version"] > VERSION:
            raise UserError(f"{path} is of a later version of kdx ({data['version']}; this one reads {VERSION})")
        common = data.pop("overrides")
        runs = [Recorded(**{**run, "overrides": (*common, *run["overrides"])}) for run in data.pop("runs")]
        del data["version"]
        manifest = Manifest(**data, runs=runs)
        lost = [need for run in runs for need in run.needs if need not in {of.label for of in runs}]
    except OSError as error:
        raise UserError(reason(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {reason(error)}") from None
    if lost:
        raise DamagedError(f"{path} is damaged: it has no run '{lost[0]}', which another starts from")
    return manifest
