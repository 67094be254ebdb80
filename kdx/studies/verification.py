"""Trains a sample of a table's runs again and compares what comes out with the table's manifest."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdx.config.compose import ConfigError, compose
from kdx.config.identity import identity
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.ranges import Count, PositiveInt
from kdx.models.weights import sha256
from kdx.pool.pool import run_all
from kdx.runs.prepare import prepare
from kdx.runs.results import Result
from kdx.studies.options import changing, located
from kdx.tables.manifest import SUFFIX, Manifest, Recorded, origin_of
from kdx.tables.placeholders import FILE, RUN, SHORT
from kdx.tables.statistics import CONFIDENCE, NONE, Interval, Summary
from kdx.tables.student_t import t_quantile

Verdict = Literal["same bits", "within the interval", "different", "not run"]
SUFFIXES = re.compile(r"\.(manifest\.json|md|csv|tex|png|txt|json)$")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The keys of `kdx verify` besides the paths.

    Attributes:
        table: Any file of the table, or the files' common name.
        cells: Number of runs to train again; None for all.
        seed: Seed of the sample.
        jobs: Processes at a time.
        files: Folder of files that runs start from; None if there are none.
        overrides: Overrides of every run that change no result.
    """

    table: str
    cells: PositiveInt | None
    seed: Count
    jobs: PositiveInt
    files: str | None
    overrides: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """A run beside its repetition.

    Attributes:
        run: As recorded.
        value: The recorded measurement; None if there is none.
        again: The repeated one; None if nothing ran.
        interval: Where the measurement of one run of this row lies with a probability of 95 %.
        verdict: The comparison.
        why: More about it, in a few words.
        origin: Code, versions and machine of the repetition; None if nothing ran.
    """

    run: Recorded
    value: float | None
    again: float | None
    interval: Interval
    verdict: Verdict
    why: str
    origin: Mapping[str, Any] | None = None


def manifest_path(table: str) -> Path:
    """The manifest of a table.

    Raises:
        UserError: There is none.
    """
    path = Path(SUFFIXES.sub("", table))
    found = [path / f"table.{SUFFIX}", path.with_name(f"{path.name}.{SUFFIX}")]
    for place in found:
        if place.is_file():
            return place
    if not list(path.parent.glob(f"{path.name}.*")) and not path.is_dir():
        raise UserError(f"{table}: there is no such table")
    inside = sorted(p.name.removesuffix(f".{SUFFIX}") for p in path.glob(f"*.{SUFFIX}")) if path.is_dir() else []
    if inside:
        raise UserError(f"{table} is a folder of several tables; name one: {', '.join(inside[:5])}")
    raise UserError(f"{table} has no {found[1].name}, so it needs a rerun: run its study again and keep the manifest")


def edited(manifest: Manifest, path: Path) -> list[str]:
    """Files beside a manifest that are not those that the study wrote."""
    stem = path.name.removesuffix(f".{SUFFIX}")
    beside = {suffix: path.with_name(f"{stem}.{suffix}") for suffix in manifest.files}
    return [p.name for suffix, p in beside.items() if p.is_file() and sha256(p) != manifest.files[suffix]]


def sample(manifest: Manifest, cells: int | None, seed: int) -> list[Recorded]:
    """A random sample of the runs, in the order of the table."""
    if cells is None or cells >= len(manifest.runs):
        return list(manifest.runs)
    chosen = random.Random(seed).sample(range(len(manifest.runs)), cells)
    return [manifest.runs[place] for place in sorted(chosen)]


def repeat(manifest: Manifest, chosen: Sequence[Recorded], paths: Mapping[str, str], request: Request) -> list[Outcome]:
    """Train runs again, with those that they start from, and compare them.

    Args:
        manifest: Of the table.
        chosen: Runs of it.
        paths: Where to train; must hold no earlier runs but those of this verification.
        request: The command.

    Raises:
        UserError: An override changes results, or a file that a run starts from is not in `request.files`.
    """
    if stray := changing(request.overrides):
        raise UserError(f"overrides={stray[0]} changes the run; a check only sets paths, devices and so on")
    files = _files(chosen, manifest, request.files)
    outcomes: dict[str, Outcome] = {}
    found: dict[str, Result] = {}
    rounds = _rounds(manifest, chosen)
    for runs in rounds:
        configs: dict[str, RunConfig] = {}
        for run in runs:
            if missing := [need for need in run.needs if need not in found]:
                outcomes[run.label] = _not_run(manifest, run, f"'{missing[0]}', which it starts from, did not run")
                continue
            folders = {need: str(found[need].folder.absolute()) for need in run.needs}
            try:
                config = prepare(compose(_overrides(manifest, run, folders, files, paths, request)))
            except ConfigError as error:
                outcomes[run.label] = _not_run(manifest, run, error.problems[0])
                continue
            # weights that came out differently are part of the identity
            alike = all(outcomes[need].verdict == "same bits" for need in run.needs)
            if alike and identity(config) != run.identity:
                why = f"its config changed since: identity {run.identity}, now {identity(config)}"
                outcomes[run.label] = Outcome(run, run.metrics.get(manifest.metric), None, NONE, "different", why)
                continue
            configs[run.label] = config
        results, failures = run_all(configs, request.jobs, "failed", 1)
        found |= results
        outcomes |= {label: compared(manifest, manifest.run(label), result) for label, result in results.items()}
        outcomes |= {f.label: _not_run(manifest, manifest.run(f.label), f.error) for f in failures}
    return [outcomes[run.label] for run in chosen]


def _rounds(manifest: Manifest, chosen: Sequence[Recorded]) -> list[list[Recorded]]:
    """The runs and those that they start from; a run needs only runs of earlier rounds."""
    wanted: dict[str, Recorded] = {}
    waiting = list(chosen)
    while waiting:
        run = waiting.pop()
        if run.label not in wanted:
            wanted[run.label] = run
            waiting += [manifest.run(need) for need in run.needs]
    left = [run for run in manifest.runs if run.label in wanted]
    rounds: list[list[Recorded]] = []
    while left:
        names = {run.label for run in left}
        ready = [run for run in left if names.isdisjoint(run.needs)]
        if not ready:
            raise UserError(f"the manifest's runs {', '.join(sorted(names))[:100]} start from each other")
        rounds.append(ready)
        left = [run for run in left if run not in ready]
    return rounds


def _overrides(
    manifest: Manifest,
    run: Recorded,
    folders: Mapping[str, str],
    files: Mapping[str, Path],
    paths: Mapping[str, str],
    request: Request,
) -> list[str]:
    own = [RUN.sub(lambda m: folders[m[1]], o) for o in run.overrides]
    own = [FILE.sub(lambda m: str(files[m[2]].absolute()), o) for o in own]
    # the bits depend on the number of threads
    threads = f"trainer.threads={manifest.origins[run.on]['threads']}"
    return [*located(paths), "fresh=false", "logger=jsonl", threads, *own, *request.overrides]


def _files(chosen: Sequence[Recorded], manifest: Manifest, folder: str | None) -> dict[str, Path]:
    """The files that runs start from, by their short checksum."""
    wanted = {
        sha: name
        for runs in _rounds(manifest, chosen)
        for run in runs
        for override in run.overrides
        for name, sha in FILE.findall(override)
    }
    found: dict[str, Path] = {}
    for sha, name in wanted.items():
        places = [] if folder is None else sorted(Path(folder).expanduser().rglob(name))
        match = next((p for p in places if p.is_file() and sha256(p)[:SHORT] == sha), None)
        if match is None:
            where = "files=FOLDER must name its folder" if folder is None else f"not found below files={folder}"
            raise UserError(f"the table's runs start from {name} (sha256 {sha}...): {where}")
        found[sha] = match
    return found


def compared(manifest: Manifest, run: Recorded, result: Result) -> Outcome:
    """Compare a run with its repetition."""
    return replace(_compared(manifest, run, result), origin=origin_of(result.data))


def _compared(manifest: Manifest, run: Recorded, result: Result) -> Outcome:
    value, again = run.metrics.get(manifest.metric), result.metric(manifest.metric, manifest.protocol)
    interval = one_run(manifest.values(run.row), manifest.grain)
    same = run.student is not None and result.student.is_file() and sha256(result.student) == run.student
    numbers = {name: result.metric(name, manifest.protocol) for name in run.metrics}
    timeless = [name for name in run.metrics if name not in ("seconds", "cost")]
    if same and all(numbers[name] == run.metrics[name] for name in timeless):
        return Outcome(run, value, again, interval, "same bits", "")
    why = "the weights have the same bits, their measurements not" if same else ""
    if value is None or again is None:
        return Outcome(run, value, again, interval, "different", f"no {manifest.metric} to compare")
    if math.isnan(interval[0]):
        near = abs(again - value) <= manifest.grain
        why = why or "the table has one run of this row, so only the last digit counts"
        return Outcome(run, value, again, interval, "within the interval" if near else "different", why)
    inside = interval[0] <= again <= interval[1]
    return Outcome(run, value, again, interval, "within the interval" if inside else "different", why)


def one_run(values: Sequence[float], grain: float) -> Interval:
    """The 95 % prediction interval of one further run of a row, by Student's t; at least the grain on each side.

    Returns:
        NaN on both sides for fewer than two values.

    Example:
        >>> low, high = one_run([0.70, 0.72, 0.74], 0.0)
        >>> round(low, 3), round(high, 3)  # 0.72 ± 4.303 * 0.02 * sqrt(1 + 1 / 3)
        (0.621, 0.819)
    """
    if len(values) < 2:
        return NONE
    of = Summary.of(values)
    half = t_quantile((1 + CONFIDENCE) / 2, of.n - 1) * of.std * math.sqrt(1 + 1 / of.n)
    half = max(half, grain)
    return of.mean - half, of.mean + half


def _not_run(manifest: Manifest, run: Recorded, why: str) -> Outcome:
    return Outcome(run, run.metrics.get(manifest.metric), None, NONE, "not run", why)
